// micro_peer.cc - the peer protocol's arithmetic alone, by Google Benchmark. Part of: tests/bench (the program
// `micro`). Beside it what it can't be faster than: AES-256-CTR and SHA-256, each alone.
#include <benchmark/benchmark.h>

#include <vector>

#include "peer/block_keys.h"

namespace sallyport {
namespace {

using namespace peer;
using wire::PeerMode;
using wire::PeerParty;

struct Ends {
  explicit Ends(PeerMode mode) {
    const wire::PeerSalt salt;
    if (mode == PeerMode::Base) {
      sealer.emplace(baseSealer(block, PeerParty::A));
      opener.emplace(baseOpener(block, PeerParty::B, UINT32_MAX));
    } else {
      sealer.emplace(hardSealer(hardSendSecret(block, PeerParty::A, salt, salt), PeerParty::A));
      opener.emplace(hardOpener(hardReceiveSecret(block, PeerParty::B, salt, salt), PeerParty::B, UINT32_MAX));
    }
  }
  FrameCipher cipher;
  std::array<std::byte, wire::PEER_BLOCK_BYTES> block{};
  std::optional<FrameSealer> sealer;
  std::optional<FrameOpener> opener;
};

void sizes(benchmark::internal::Benchmark* bench) {
  for (const int64_t bytes : {64, 1024, 16 * 1024, 64 * 1024, 256 * 1024, 1024 * 1024}) bench->Arg(bytes);
}

void peerSeal(benchmark::State& state, PeerMode mode) {
  Ends ends(mode);
  std::vector<std::byte> frame(wire::peerFrameBytes(static_cast<uint64_t>(state.range(0))));
  for (auto _ : state) ends.sealer->seal(ends.cipher, frame, 0);
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK_CAPTURE(peerSeal, hard, PeerMode::Hard)->Apply(sizes);
BENCHMARK_CAPTURE(peerSeal, base, PeerMode::Base)->Apply(sizes);

// A frame opens once, so each is sealed anew: half of the time and of the bytes are the sealer's.
void peerSealAndOpen(benchmark::State& state, PeerMode mode) {
  Ends ends(mode);
  std::vector<std::byte> frame(wire::peerFrameBytes(static_cast<uint64_t>(state.range(0))));
  const MutableByteSpan all = frame;
  for (auto _ : state) {
    ends.sealer->seal(ends.cipher, frame, 0);
    if (!ends.opener->openHeader(ends.cipher, all.first<wire::PEER_HEADER_BYTES>()) ||
        ends.opener->openBody(ends.cipher, all.subspan(wire::PEER_HEADER_BYTES)))
      return state.SkipWithError("the frame doesn't open");
  }
  state.SetBytesProcessed(2 * state.iterations() * state.range(0));
}
BENCHMARK_CAPTURE(peerSealAndOpen, hard, PeerMode::Hard)->Apply(sizes);

void aesAlone(benchmark::State& state) {
  FrameCipher cipher;
  std::vector<std::byte> bytes(static_cast<size_t>(state.range(0)));
  StreamKey key;
  key.renew();
  for (auto _ : state) {
    cipher.begin(key, 0);
    cipher.crypt(bytes);
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(aesAlone)->Arg(64)->Arg(64 * 1024);

void shaAlone(benchmark::State& state) {
  std::vector<std::byte> bytes(static_cast<size_t>(state.range(0)));
  Digest digest = initialDigest();
  for (auto _ : state) {
    Hash hash;
    hash.startFrom(digest.expose());
    hash.update(bytes);
    hash.finish(digest.exposeMutable());
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(shaAlone)->Arg(64)->Arg(64 * 1024);

void rekeyCipher(benchmark::State& state) {
  FrameCipher cipher;
  StreamKey key;
  for (auto _ : state) {
    key.renew();
    benchmark::DoNotOptimize(cipher.begin(key, 0));
  }
}
BENCHMARK(rekeyCipher);

// What a connection costs netd when the vault has answered: both directions' keys of epoch 0.
void peerConnectionKeys(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(hardSealer(SendSecret(), PeerParty::A));
    benchmark::DoNotOptimize(hardOpener(ReceiveSecret(), PeerParty::A, 1 << 24));
  }
}
BENCHMARK(peerConnectionKeys);

}  // namespace
}  // namespace sallyport
