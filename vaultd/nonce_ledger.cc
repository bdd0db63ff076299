#include "vaultd/nonce_ledger.h"

#include <sodium.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/secret_bytes.h"

namespace sallyport::vaultd {

namespace {

// magic 8 | generation be64 | bound be64 | wall be64 | instance 16 | key id 16 | place 16 | zeros | BLAKE2b-256 of all
// before
constexpr std::string_view MAGIC = "SPNONCE1";
constexpr size_t GENERATION_AT = 8;
constexpr size_t BOUND_AT = 16;
constexpr size_t WALL_AT = 24;
constexpr size_t INSTANCE_AT = 32;
constexpr size_t KEY_ID_AT = 48;
constexpr size_t PLACE_AT = 64;
constexpr size_t CHECKSUM_BYTES = 32;
constexpr size_t CHECKSUM_AT = NonceLedger::SLOT_BYTES - CHECKSUM_BYTES;

constexpr uint64_t FLOOR_EPOCH_SECONDS = 1577836800;  // 2020-01-01
constexpr unsigned FLOOR_SHIFT = 21;
constexpr uint64_t LAST_WALL_SECONDS = FLOOR_EPOCH_SECONDS + (NonceLedger::END >> (FLOOR_SHIFT + 1));  // 70,000 years
constexpr uint64_t MAX_CLOCK_LEAP_SECONDS = uint64_t{10} * 366 * 86400;

void putBe64(MutableByteSpan out, uint64_t value) {
  for (size_t i = 0; i < 8; ++i) out[i] = static_cast<std::byte>(value >> (56 - 8 * i));
}

uint64_t getBe64(ByteSpan in) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value = value << 8 | static_cast<uint64_t>(in[i]);
  return value;
}

template <size_t N>
void put(MutableByteSpan out, const std::array<std::byte, N>& value) {
  std::memcpy(out.data(), value.data(), N);
}
template <size_t N>
void get(ByteSpan in, std::array<std::byte, N>& value) {
  std::memcpy(value.data(), in.data(), N);
}

std::array<std::byte, CHECKSUM_BYTES> checksum(ByteSpan bytes) {
  std::array<std::byte, CHECKSUM_BYTES> sum;
  CHECK(crypto_generichash_blake2b(reinterpret_cast<unsigned char*>(sum.data()), sum.size(), uchars(bytes),
                                   bytes.size(), nullptr, 0) == 0);
  return sum;
}

InstanceId freshInstance() {
  InstanceId instance;
  fillRandom(instance);
  return instance;
}

uint64_t floorAt(uint64_t wallSeconds) {
  return wallSeconds <= FLOOR_EPOCH_SECONDS ? 0 : (wallSeconds - FLOOR_EPOCH_SECONDS) << FLOOR_SHIFT;
}

}  // namespace

std::array<std::byte, NonceLedger::SLOT_BYTES> NonceLedger::encode(const Slot& slot) {
  std::array<std::byte, SLOT_BYTES> bytes{};
  const MutableByteSpan out(bytes);
  std::memcpy(bytes.data(), MAGIC.data(), MAGIC.size());
  putBe64(out.subspan(GENERATION_AT), slot.generation);
  putBe64(out.subspan(BOUND_AT), slot.bound);
  putBe64(out.subspan(WALL_AT), slot.wallSeconds);
  put(out.subspan(INSTANCE_AT), slot.instance);
  put(out.subspan(KEY_ID_AT), slot.facts.keyId);
  put(out.subspan(PLACE_AT), slot.facts.place);
  // Over the whole slot: whichever of its sectors didn't reach the disk, the sum is wrong.
  put(out.subspan(CHECKSUM_AT), checksum(out.first(CHECKSUM_AT)));
  return bytes;
}

NonceLedger::SlotState NonceLedger::decode(ByteSpan bytes, size_t index, Slot& slot) {
  std::array<std::byte, CHECKSUM_BYTES> stored;
  get(bytes.subspan(CHECKSUM_AT), stored);
  const bool whole = stored == checksum(bytes.first(CHECKSUM_AT));
  if (std::memcmp(bytes.data(), MAGIC.data(), MAGIC.size()) != 0) {
    const bool ours = std::memcmp(bytes.data(), MAGIC.data(), MAGIC.size() - 1) == 0;
    return ours && whole ? SlotState::OtherVersion : SlotState::Damaged;
  }
  if (!whole) return SlotState::Damaged;
  slot.generation = getBe64(bytes.subspan(GENERATION_AT));
  slot.bound = getBe64(bytes.subspan(BOUND_AT));
  slot.wallSeconds = getBe64(bytes.subspan(WALL_AT));
  get(bytes.subspan(INSTANCE_AT), slot.instance);
  get(bytes.subspan(KEY_ID_AT), slot.facts.keyId);
  get(bytes.subspan(PLACE_AT), slot.facts.place);
  // We only ever write even generations to slot 0 and odd ones to slot 1: anything else was moved there.
  const bool possible = slot.generation % 2 == index && slot.bound <= END && slot.wallSeconds <= LAST_WALL_SECONDS;
  return possible ? SlotState::Good : SlotState::Damaged;
}

NonceLedger::Image NonceLedger::newImage(const NonceFacts& facts, uint64_t wallSeconds) {
  Slot slot;
  slot.facts = facts;
  slot.wallSeconds = std::min(wallSeconds, LAST_WALL_SECONDS);
  slot.instance = freshInstance();
  Image image;
  // Two good slots from the start, so that a damaged one is always news.
  for (uint64_t generation : {1, 2}) {
    slot.generation = generation;
    const auto bytes = encode(slot);
    std::memcpy(image.data() + (generation % 2) * SLOT_BYTES, bytes.data(), SLOT_BYTES);
  }
  return image;
}

Result<std::unique_ptr<NonceLedger>, Problem> NonceLedger::open(std::unique_ptr<NonceDisk> disk,
                                                                const NonceFacts& facts, WallClock clock,
                                                                uint64_t reservation) {
  std::unique_ptr<NonceLedger> ledger(new NonceLedger);
  ledger->disk_ = std::move(disk);
  ledger->clock_ = std::move(clock);
  ledger->reservation_ = reservation;
  if (auto good = ledger->readState(facts); !good) return refuse(good.error());
  ledger->refill();  // failing is part of the ledger's state
  return ledger;
}

std::unique_ptr<NonceLedger> NonceLedger::unusable(std::string why) {
  std::unique_ptr<NonceLedger> ledger(new NonceLedger);
  ledger->poison(std::move(why));
  return ledger;
}

Result<NonceLedger::Copies, Problem> NonceLedger::readCopies(NonceDisk& disk) {
  Copies copies;
  const ssize_t got = disk.read(0, copies.image);
  if (got < 0) return refuse(Problem{std::string("can't read: ") + std::strerror(static_cast<int>(-got)), {}});
  const char* const remedy =
      "move the file away: the next start makes a new one, under a fresh nonce key, which is safe";
  if (got != static_cast<ssize_t>(FILE_BYTES)) return refuse(Problem{"the nonce state is cut off", remedy});

  std::array<SlotState, 2> states;
  for (size_t i = 0; i < 2; ++i) {
    states[i] = decode(ByteSpan(copies.image).subspan(i * SLOT_BYTES, SLOT_BYTES), i, copies.slots[i]);
    copies.good[i] = states[i] == SlotState::Good;
  }
  if (states[0] == SlotState::OtherVersion || states[1] == SlotState::OtherVersion) {
    return refuse(
        Problem{"the nonce state is of another version",
                "use the version of sallyport that wrote it, or move the file away: the next start makes a new one"});
  }
  if (!copies.good[0] && !copies.good[1]) return refuse(Problem{"both copies of the nonce state are damaged", remedy});
  return copies;
}

Result<void, Problem> NonceLedger::inspect(NonceDisk& disk) {
  if (auto copies = readCopies(disk); !copies) return refuse(copies.error());
  return {};
}

Result<void, Problem> NonceLedger::readState(const NonceFacts& facts) {
  const auto copies = readCopies(*disk_);
  if (!copies) return refuse(copies.error());
  const auto& [image, slots, good] = *copies;
  const auto [good0, good1] = good;
  const size_t newest = good0 && (!good1 || slots[0].generation > slots[1].generation) ? 0 : 1;
  state_ = slots[newest];
  next_ = state_.bound;
  if (good0 && good1) {
    const Slot& older = slots[1 - newest];
    if (state_.generation - older.generation != 1) suspect("the two copies don't follow each other");
    if (older.instance == state_.instance && older.bound > state_.bound) suspect("the bound went down");
    next_ = std::max(next_, older.bound);
  } else {
    suspect("one copy was damaged");
  }
  if (state_.facts.keyId != facts.keyId) suspect("it was made for another key");
  if (state_.facts.place != facts.place) suspect("it was copied, restored, or comes from another machine");
  state_.facts = facts;
  if (clock_() < state_.wallSeconds) suspect("the clock is behind the time of the last write");
  applyClock();
  next_ = std::max(next_, floorAt(state_.wallSeconds));
  bound_ = next_;

  // What we read may be in the kernel's cache alone: left by a vault that was killed between write and fdatasync, or
  // whose fdatasync failed. Before the other slot is touched this one must be on the disk, or a power cut could take
  // both. The same bytes in the same place can't tear. (Found by the property test.)
  writeSlot(newest, ByteSpan(image).subspan(newest * SLOT_BYTES, SLOT_BYTES));
  return {};
}

void NonceLedger::suspect(const char* why) {
  state_.instance = freshInstance();
  renewed_ += renewed_.empty() ? "" : "; ";
  renewed_ += why;
}

void NonceLedger::applyClock() {
  const uint64_t now = clock_();
  // Never backwards, and not after a clock gone wild: its time would stay in the file as the floor for ever.
  if (now > state_.wallSeconds && now - state_.wallSeconds <= MAX_CLOCK_LEAP_SECONDS) state_.wallSeconds = now;
}

bool NonceLedger::refill() {
  if (poisoned_) return false;
  if (next_ > END - 2 * reservation_) {
    poison("all counters are used up: rotate the key");
    return false;
  }
  applyClock();
  state_.bound = next_ + 2 * reservation_;
  ++state_.generation;
  if (!store()) return false;
  bound_ = state_.bound;
  ++refills_;
  return true;
}

bool NonceLedger::store() { return writeSlot(state_.generation % 2, encode(state_)); }

bool NonceLedger::writeSlot(size_t index, ByteSpan bytes) {
  const ssize_t written = disk_->write(index * SLOT_BYTES, bytes);
  if (written != static_cast<ssize_t>(bytes.size())) {
    poison("can't write the nonce state: " +
           std::string(written < 0 ? std::strerror(static_cast<int>(-written)) : "short write"));
    return false;
  }
  if (const int result = disk_->sync(); result < 0) {
    // Never again on this descriptor: the kernel may have dropped the page and would report success.
    poison(std::string("can't make the nonce state durable: ") + std::strerror(-result));
    return false;
  }
  return true;
}

void NonceLedger::poison(std::string why) {
  poisoned_ = true;
  why_ = std::move(why);
  bound_ = next_;
}

}  // namespace sallyport::vaultd
