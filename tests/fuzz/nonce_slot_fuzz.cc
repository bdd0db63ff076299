// Goal: whatever a nonce state file holds, either it is refused or counting goes on, and never backwards.
// Method: the input is the first bytes of both slots, and whether their checksums are made right; the ledger is opened,
// drawn from, and opened again on what it left.
#include <sodium.h>

#include <set>

#include "tests/fuzz/input.h"
#include "tests/sim/dice.h"
#include "tests/unit/vaultd/memory_disk.h"

using namespace sallyport;
using vaultd::NonceLedger;

namespace {

constexpr size_t FIELDS_BYTES = 80;
constexpr size_t CHECKSUM_AT = NonceLedger::SLOT_BYTES - 32;

void readSlot(fuzz::Input& input, MutableByteSpan slot) {
  const uint8_t how = input.byte();
  const auto fields = input.block(FIELDS_BYTES);
  std::copy(fields.begin(), fields.end(), slot.begin());
  if ((how & 1) != 0) std::memcpy(slot.data(), "SPNONCE1", 8);
  if ((how & 2) != 0) {  // the keys and places of this host
    std::fill(slot.begin() + 48, slot.begin() + 80, std::byte{0});
  }
  if ((how & 4) != 0) return;
  crypto_generichash_blake2b(uchars(slot.subspan(CHECKSUM_AT)), 32, uchars(ByteSpan(slot)), CHECKSUM_AT, nullptr, 0);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  sim::installDice();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  sim::sodiumDice = sim::Dice(1);
  sim::drawnSecrets.clear();
  fuzz::Input input(data, size);
  vaultd::test::DiskState disk;
  for (size_t i = 0; i < 2; ++i)
    readSlot(input, MutableByteSpan(disk.image).subspan(i * NonceLedger::SLOT_BYTES, NonceLedger::SLOT_BYTES));
  uint64_t wall = 1700000000 + uint64_t{input.word()} * 65536;
  constexpr uint64_t RESERVATION = 4;
  std::set<std::pair<vaultd::InstanceId, uint64_t>> used;
  bool stored = false;
  for (int starts = 0; starts < 4; ++starts) {
    auto opened = NonceLedger::open(
        std::make_unique<vaultd::test::MemoryDisk>(disk), {}, [wall] { return wall; }, RESERVATION);
    if (!opened) {
      CHECK(starts == 0 && !opened.error().message.empty());  // what we wrote ourselves opens
      return 0;
    }
    NonceLedger& ledger = **opened;
    // What it left itself is suspicious for the clock alone (or after 2^64 generations).
    const bool lastGeneration =
        disk.image[8] == std::byte{0xff} || disk.image[NonceLedger::SLOT_BYTES + 8] == std::byte{0xff};
    const bool clock = ledger.renewed() == "the clock is behind the time of the last write";
    if (stored) CHECK(ledger.renewed().empty() || clock || lastGeneration);
    stored = ledger.ready();  // one whose counters are used up writes nothing
    for (int i = input.byte() % 16; i > 0; --i) {
      const auto counter = ledger.draw();
      CHECK(counter.has_value() == ledger.ready());
      if (!counter) break;
      CHECK(*counter < NonceLedger::END && used.emplace(ledger.instance(), *counter).second);
    }
    wall += input.byte();
  }
  return 0;
}
