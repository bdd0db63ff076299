// block_flow.cc - the peer protocol's steps, through the vault's own services: the keys of hard mode's connections, the
// frames of base mode. And the frames of hard mode, which are netd's: peer/ is both's. See secret_flow.cc.
#include "common/event_loop.h"
#include "tests/timing/flow.h"
#include "tests/unit/vaultd/claims_disk.h"
#include "tests/unit/vaultd/memory_disk.h"
#include "vaultd/base_sessions.h"
#include "vaultd/vault_service.h"

// What is decrypted of a header goes to netd, or ends the direction by its name: this is where it becomes public. The
// linker puts this function between (--wrap), for the code that is tested stays as it is.
namespace sallyport::wire {
using ParsedHeader = Result<PeerHeader, DropReason>;
ParsedHeader realParse(const PeerHeaderBytes&, const PeerChecksumMask&, uint32_t, uint32_t) __asm__(
    "__real__ZN9sallyport4wire15parsePeerHeaderERKSt5arrayISt4byteLm16EERKS1_IS2_Lm4EEjj");
ParsedHeader publishingParse(const PeerHeaderBytes&, const PeerChecksumMask&, uint32_t, uint32_t) __asm__(
    "__wrap__ZN9sallyport4wire15parsePeerHeaderERKSt5arrayISt4byteLm16EERKS1_IS2_Lm4EEjj");

namespace {
int parsed = 0;  // headers that depended on a secret until then
}

ParsedHeader publishingParse(const PeerHeaderBytes& header, const PeerChecksumMask& mask, uint32_t sequence,
                             uint32_t maxLength) {
  parsed += vaultd::flow::dependsOnASecret(header);
  PeerHeaderBytes plain = header;
  PeerChecksumMask plainMask = mask;
  vaultd::flow::publish(plain);
  vaultd::flow::publish(plainMask);
  return realParse(plain, plainMask, sequence, maxLength);
}
}  // namespace sallyport::wire

namespace sallyport::vaultd::flow {
namespace {

constexpr std::string_view CONFIG = R"([vault]
keys = "keys"
[[listen]]
name = "b"
address = "127.0.0.1:7001"
protocol = "peer"
key = "hard"
service = "echo"
[[listen]]
name = "base"
address = "127.0.0.1:7002"
protocol = "peer"
mode = "base"
key = "base-b"
rotate_frames = 2
service = "echo"
[[connect]]
name = "base"
address = "127.0.0.1:7002"
protocol = "peer"
mode = "base"
key = "base-a"
rotate_frames = 2
)";

using Stream = std::vector<std::byte>;

capnp::Data::Reader raw(ByteSpan bytes) { return {uchars(bytes), bytes.size()}; }
Stream copyOf(capnp::Data::Reader data) {
  const auto* begin = reinterpret_cast<const std::byte*>(data.begin());
  return {begin, begin + data.size()};
}

class Blocks {
 public:
  Blocks() {
    const auto config = parseConfig(CONFIG, "/nowhere/sallyport.toml");
    CHECK(config.has_value());
    add("hard", wire::PeerParty::B);
    add("base-a", wire::PeerParty::A);
    add("base-b", wire::PeerParty::B);
    claims_ = std::move(*BlockClaims::open(std::make_unique<test::ClaimsDisk>(image_), {}, image_.bytes.size()));
    base_.emplace(*arena_, *claims_);
    state_.emplace(VaultState{cache_, keys_, Policy(*config, keys_), {}, [] { return uint64_t{1000}; }});
    state_->base = &*base_;
    net_.emplace(kj::heap<NetService>(*state_));
  }

  void run() {
    step("peerKeys", [&] { hardSecrets(); });
    step("hard mode's frames", [&] { hardFrames(); });
    step("base mode: seal", [&] { baseSealed(); });
    step("base mode: open", [&] { baseOpened(); });
    expect(wire::parsed > 0, "no header depended on a secret");
  }

 private:
  void add(const char* name, wire::PeerParty party) {
    constexpr int64_t LONG_AGO = 1'700'000'000;
    auto made = newKey(name, KeyKind::PeerBlock, LongTermSecret::random(KeyKind::PeerBlock), {}, LONG_AGO, party);
    CHECK(made.has_value());
    made->opened.header.versions[0].unused = made->opened.versions[0].version.unused = true;
    const auto key = keys_.add(std::move(made->opened), test::freshLedger(), 1000, 0, LONG_AGO);
    CHECK(key.has_value());
    makeSecret(blockOf(name));
  }
  peer::PeerBlockView blockOf(std::string_view name) { return keys_.find(name)->versions[0].secret->block().view(); }

  std::array<Stream, 2> derive(ByteSpan own, ByteSpan peer) {
    auto request = net_->peerKeysRequest();
    auto one = request.initRequests(1)[0];
    one.getEntry().setName("b");
    one.getEntry().setListen(true);
    one.setOwnSalt(raw(own));
    one.setPeerSalt(raw(peer));
    auto answer = loop_.await(request.send());
    const auto outcome = answer.getOutcomes()[0];
    if (!outcome.isDerived()) return {};
    return {copyOf(outcome.getDerived().getSendSecret()), copyOf(outcome.getDerived().getReceiveSecret())};
  }

  void hardSecrets() {
    auto request = net_->peerSaltsRequest();
    auto one = request.initEntries(1)[0];
    one.setName("b");
    one.setListen(true);
    auto answer = loop_.await(request.send());
    const Stream own = copyOf(answer.getOutcomes()[0].getDrawn().getSalt());
    const Stream peer(wire::PEER_SALT_BYTES, std::byte{7});
    const auto [send, receive] = derive(own, peer);
    expect(!send.empty() && dependsOnASecret(send) && dependsOnASecret(receive), "the secrets of a connection");
    expect(derive(own, peer)[0].empty(), "a salt works once");
  }

  void hardFrames() {
    auto secret = peer::SendSecret::random();
    peer::ReceiveSecret same(secret.expose());
    makeSecret(secret.expose());
    makeSecret(same.expose());
    auto sealer = peer::hardSealer(std::move(secret), wire::PeerParty::A, ROTATE);
    auto opener = peer::hardOpener(std::move(same), wire::PeerParty::B, 1000, ROTATE);
    const auto open = [&](Stream frame) {
      const auto header = opener.openHeader(cipher_, ByteSpan(frame).first<wire::PEER_HEADER_BYTES>());
      if (!header) return false;
      const auto body = MutableByteSpan(frame).subspan(wire::PEER_HEADER_BYTES);
      const bool good = !opener.openBody(cipher_, body);
      if (good) expectSecret(body.first(header->length), "a payload");
      return good;
    };
    for (int i = 0; i < 5; ++i) {  // more than an epoch has
      Stream frame(wire::PEER_OVERHEAD_BYTES + 100);
      expect(!sealer.seal(cipher_, frame, 0), "a frame is sealed");
      expectSecret(frame, "a frame");
      if (i == 4) frame = forged(frame);
      expect(open(frame) == (i < 4), "frames open but the forged one");
    }
    cipher_.forget();
  }

  proto::PeerSession::Client begin(bool isListen) {
    auto request = net_->peerSessionRequest();
    request.getEntry().setName("base");
    request.getEntry().setListen(isListen);
    auto answer = loop_.await(request.send());
    CHECK(answer.getOutcome().isBegun());
    return answer.getOutcome().getBegun().getSession();
  }

  // Several frames; epochs end between them.
  static Stream plainFrames() {
    Stream plain;
    for (const size_t length : {0, 1, 100, 300, 5}) {
      Stream frame(wire::PEER_OVERHEAD_BYTES + length);
      frame[2] = static_cast<std::byte>(length >> 8);
      frame[3] = static_cast<std::byte>(length);
      plain.insert(plain.end(), frame.begin(), frame.end());
    }
    return plain;
  }

  void baseSealed() {
    const Stream plain = plainFrames();
    auto session = begin(false);
    Stream sealed;
    for (size_t at = 0; at < plain.size(); at += PIECE) {  // in the midst of headers, payloads and tags
      auto request = session.sealRequest();
      request.setFrames(raw(ByteSpan(plain).subspan(at, std::min(PIECE, plain.size() - at))));
      auto answer = loop_.await(request.send());
      if (!answer.getOutcome().isFrames()) break;
      const Stream piece = copyOf(answer.getOutcome().getFrames());
      sealed.insert(sealed.end(), piece.begin(), piece.end());
    }
    expect(sealed.size() == plain.size(), "all frames are sealed");
    expectSecret(sealed, "sealed frames");
  }

  // What the other party sends.
  Stream sealedByTheOther() {
    const Stream plain = plainFrames();
    BaseSealing sealing(peer::baseSealer(blockOf("base-b"), wire::PeerParty::A, ROTATE), 1000);
    Stream sealed(plain.size() + MAX_HELD);
    const auto bytes = sealing.seal(cipher_, plain, sealed);
    cipher_.forget();
    CHECK(bytes && *bytes == plain.size());
    sealed.resize(*bytes);
    publish(sealed);
    return sealed;
  }

  struct Opened {
    Stream frames;
    std::string fault;
  };
  Opened open(const Stream& sealed) {
    auto session = begin(true);
    Opened result;
    for (size_t at = 0; at < sealed.size() && result.fault.empty(); at += PIECE) {
      auto request = session.openRequest();
      request.setFrames(raw(ByteSpan(sealed).subspan(at, std::min(PIECE, sealed.size() - at))));
      auto answer = loop_.await(request.send());
      if (!answer.getOutcome().isOpened()) return {{}, "refused"};
      const auto opened = answer.getOutcome().getOpened();
      const Stream piece = copyOf(opened.getFrames());
      result.frames.insert(result.frames.end(), piece.begin(), piece.end());
      result.fault = opened.getFault();
    }
    return result;
  }

  void baseOpened() {
    const Stream sealed = sealedByTheOther();
    Stream changed = sealed;
    changed[0] ^= std::byte{1};
    const auto bad = open(changed);
    expect(bad.fault == "bad_checksum" && bad.frames.empty(), "a changed header");
    // With the last tag wrong. The first header was genuine, so after this the block is used up.
    const auto opened = open(forged(sealed));
    expect(opened.fault == "bad_tag" && dependsOnASecret(opened.frames), "all frames but the last one open");
  }

  static constexpr uint32_t ROTATE = 2;  // as in CONFIG
  static constexpr size_t PIECE = 37;
  EventLoop loop_;
  std::unique_ptr<SecretArena> arena_ = std::move(*SecretArena::create(256 * 1024, SecretArena::Want::LockedMemory));
  SharedKeyCache cache_{*arena_, 64};
  Keyring keys_{*arena_, cache_};
  test::ClaimsImage image_{16};
  std::unique_ptr<BlockClaims> claims_;
  std::optional<BaseSessions> base_;
  std::optional<VaultState> state_;
  std::optional<proto::Net::Client> net_;
  peer::FrameCipher cipher_;
};

}  // namespace

void blockFlows() { Blocks().run(); }

}  // namespace sallyport::vaultd::flow
