// micro.cc - the worker's and the vault's arithmetic alone, by Google Benchmark. Part of: tests/bench.
// Messages are compared with libsodium's crypto_box_easy_afternm, which derives a subkey for each of them.
#include <benchmark/benchmark.h>
#include <sodium.h>
#include <time.h>

#include <array>
#include <cstdlib>
#include <vector>

#include "netd/cookie_keys.h"
#include "netd/handshake.h"
#include "netd/short_term_box.h"
#include "netd/session.h"
#include "vaultd/keyring.h"

namespace sallyport {
namespace {

using netd::ClientHandshake;
using netd::MessageCipher;
using netd::ServerHandshake;

constexpr size_t TAG = wire::BOX_TAG_BYTES;

void sizes(benchmark::internal::Benchmark* bench) {
  for (const int64_t bytes : {64, 1024, 16 * 1024, 64 * 1024 - 64}) bench->Arg(bytes);
}

// --- messages --------------------------------------------------------------------------------------------------------

void messageSeal(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0));
  MessageCipher cipher;
  const std::array<std::byte, wire::KEY_BYTES> key{};
  std::vector<std::byte> box(TAG + bytes);
  uint64_t counter = wire::FIRST_MESSAGE_COUNTER;
  for (auto _ : state) cipher.seal(box, counter++, key);
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(messageSeal)->Apply(sizes);

// Opening decrypts in place, so the box is put back each time; the copy is part of the figure.
void messageOpen(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0));
  MessageCipher cipher;
  const std::array<std::byte, wire::KEY_BYTES> key{};
  std::vector<std::byte> sealed(TAG + bytes);
  cipher.seal(sealed, wire::FIRST_MESSAGE_COUNTER, key);
  std::vector<std::byte> box(sealed.size());
  for (auto _ : state) {
    box = sealed;
    if (!cipher.open(box, wire::FIRST_MESSAGE_COUNTER, key)) return state.SkipWithError("the box doesn't open");
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(messageOpen)->Apply(sizes);

void sodiumSeal(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0));
  const std::array<unsigned char, crypto_box_BEFORENMBYTES> key{};
  std::array<unsigned char, crypto_box_NONCEBYTES> nonce{};
  const std::vector<unsigned char> text(bytes);
  std::vector<unsigned char> box(TAG + bytes);
  for (auto _ : state) {
    sodium_increment(nonce.data(), nonce.size());
    crypto_box_easy_afternm(box.data(), text.data(), text.size(), nonce.data(), key.data());
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(sodiumSeal)->Apply(sizes);

void sodiumOpen(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0));
  const std::array<unsigned char, crypto_box_BEFORENMBYTES> key{};
  const std::array<unsigned char, crypto_box_NONCEBYTES> nonce{};
  std::vector<unsigned char> text(bytes);
  std::vector<unsigned char> box(TAG + bytes);
  crypto_box_easy_afternm(box.data(), text.data(), text.size(), nonce.data(), key.data());
  for (auto _ : state) {
    if (crypto_box_open_easy_afternm(text.data(), box.data(), box.size(), nonce.data(), key.data()) != 0)
      return state.SkipWithError("the box doesn't open");
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(sodiumOpen)->Apply(sizes);

// --- the steps of a handshake, without the vault's -------------------------------------------------------------------

PublicKey somePublicKey() { return netd::makeEphemeralPair().publicKey; }

void clientHello(benchmark::State& state) {
  const PublicKey server = somePublicKey();
  for (auto _ : state) {
    ClientHandshake client(server);
    benchmark::DoNotOptimize(client.start());
  }
}
BENCHMARK(clientHello);

void serverOnHello(benchmark::State& state) {
  netd::CookieKeys keys;
  keys.rotate(netd::MinuteKey::random());
  ClientHandshake client(somePublicKey());
  auto step = client.start();
  const ByteSpan packet = ByteSpan(std::get<wire::HelloFrame>(step)).subspan(wire::FRAME_HEADER_BYTES);
  for (auto _ : state) {
    ServerHandshake server;
    benchmark::DoNotOptimize(server.onPacket(packet, keys));
  }
}
BENCHMARK(serverOnHello);

void agreeOnKey(benchmark::State& state) {
  const netd::EphemeralPair pair = netd::makeEphemeralPair();
  const PublicKey theirs = somePublicKey();
  for (auto _ : state) benchmark::DoNotOptimize(netd::agree(theirs, pair.secret));
}
BENCHMARK(agreeOnKey);

void ephemeralPair(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(netd::makeEphemeralPair());
}
BENCHMARK(ephemeralPair);

void cookieSealAndOpen(benchmark::State& state) {
  netd::CookieKeys keys;
  keys.rotate(netd::MinuteKey::random());
  const netd::EphemeralPair pair = netd::makeEphemeralPair();
  for (auto _ : state) benchmark::DoNotOptimize(keys.open(keys.seal(pair.publicKey, pair.secret)));
}
BENCHMARK(cookieSealAndOpen);

// --- the vault's nonces ----------------------------------------------------------------------------------------------

// A disk in memory: the reservations' fdatasync is the system tests' affair.
class MemoryDisk final : public vaultd::NonceDisk {
 public:
  explicit MemoryDisk(const vaultd::NonceLedger::Image& image) : image_(image) {}
  ssize_t read(size_t offset, MutableByteSpan bytes) override {
    const size_t count = std::min(bytes.size(), image_.size() - offset);
    std::memcpy(bytes.data(), image_.data() + offset, count);
    return static_cast<ssize_t>(count);
  }
  ssize_t write(size_t offset, ByteSpan bytes) override {
    std::memcpy(image_.data() + offset, bytes.data(), bytes.size());
    return static_cast<ssize_t>(bytes.size());
  }
  int sync() override { return 0; }

 private:
  vaultd::NonceLedger::Image image_;
};

void nonceDraw(benchmark::State& state) {
  using vaultd::NonceLedger;
  const auto clock = [] { return uint64_t{1'800'000'000}; };
  const vaultd::NonceFacts facts;
  auto ledger = NonceLedger::open(std::make_unique<MemoryDisk>(NonceLedger::newImage(facts, clock())), facts, clock);
  if (!ledger) return state.SkipWithError("the ledger doesn't open");
  const std::array<std::byte, 32> secret{};
  vaultd::NonceSource<vaultd::BoxRole::Cookie> nonces(**ledger, secret);
  for (auto _ : state) benchmark::DoNotOptimize(nonces.draw());
}
BENCHMARK(nonceDraw);

// --- panic -----------------------------------------------------------------------------------------------------------

double threadCpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// As many keys as the vault's arena holds, each with as many versions as a key may have, and a full cache. CPU time
// until every secret is gone: the arena is wiped first, the rest is tidying up.
void panicWithAFullArena(benchmark::State& state) {
  using namespace vaultd;
  size_t versions = 0;
  for (auto _ : state) {
    auto arena = SecretArena::create();
    if (!arena) return state.SkipWithError("no memory for secrets");
    SharedKeyCache cache(**arena);
    Keyring ring(**arena, cache);
    versions = 0;
    const size_t room = VersionSecret::arenaBytes(KeyKind::X25519);
    for (int key = 0; (*arena)->freeBytes() >= room; ++key) {
      OpenedKey opened;
      opened.header.name = "k" + std::to_string(key);
      const size_t fit = std::min(MAX_VERSIONS, (*arena)->freeBytes() / room);
      for (uint32_t number = 1; number <= fit; ++number) {
        KeyVersion version;
        version.number = number;
        version.activeFrom = 1;
        version.openOnlyFrom = number < fit ? 2 : 0;
        opened.header.versions.push_back(version);
        opened.versions.push_back({version, LongTermSecret::random()});
      }
      versions += fit;
      if (!ring.add(std::move(opened), NonceLedger::unusable("not needed"), 1, 0, 10)) {
        return state.SkipWithError("a key doesn't fit");
      }
    }
    const std::array<std::byte, 32> shared{};
    for (uint32_t i = 0; i < cache.capacity(); ++i) {
      PublicKey peer;
      std::memcpy(peer.data(), &i, sizeof i);
      cache.insert(i % static_cast<uint32_t>(versions), peer, shared);
    }
    const double begun = threadCpuSeconds();
    ring.panic();
    state.SetIterationTime(threadCpuSeconds() - begun);
  }
  state.counters["versions"] = static_cast<double>(versions);
}
BENCHMARK(panicWithAFullArena)->UseManualTime()->Iterations(5)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace sallyport

int main(int argc, char** argv) {
  if (sodium_init() < 0) return 1;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
