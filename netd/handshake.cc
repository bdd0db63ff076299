// handshake.cc - see handshake.h.
#include "netd/handshake.h"

#include <sodium.h>

#include <cstring>

namespace sallyport::netd {

using wire::DropReason;

// --- server ----------------------------------------------------------------------------------------------------------

size_t ServerHandshake::expectedPacketBytes() const {
  if (std::holds_alternative<AwaitHello>(state_)) return wire::HELLO_BYTES;
  if (std::holds_alternative<AwaitInitiate>(state_)) return wire::INITIATE_BYTES;
  return 0;
}

bool ServerHandshake::awaitsVault() const {
  return std::holds_alternative<AwaitCookie>(state_) || std::holds_alternative<AwaitVerdict>(state_);
}

ServerHandshake::CookieHash ServerHandshake::hash(const Cookie& cookie) {
  CookieHash result;
  crypto_generichash(result.data(), CookieHash::SIZE, uchars(ByteSpan(cookie)), cookie.size(), nullptr, 0);
  return result;
}

ServerHandshake::Step ServerHandshake::onPacket(ByteSpan packet, const CookieKeys& keys) {
  if (std::holds_alternative<AwaitHello>(state_)) {
    auto hello = wire::parseHello(packet);
    return hello ? onHello(*hello, keys) : Step(Drop{hello.error()});
  }
  if (std::holds_alternative<AwaitInitiate>(state_)) {
    auto initiate = wire::parseInitiate(packet);
    return initiate ? onInitiate(*initiate, keys) : Step(Drop{initiate.error()});
  }
  // A packet while the vault is asked, or after the end: it belongs to no phase.
  return Drop{DropReason::BadLength};
}

// protocol §3 step 2: the Hello's box is opened by the vault, in the same call that seals the Cookie.
ServerHandshake::Step ServerHandshake::onHello(const wire::Hello& hello, const CookieKeys& keys) {
  const EphemeralPair pair = makeEphemeralPair();
  SealCookieRequest request{hello.clientEphemeral, hello.box, pair.publicKey,
                            keys.seal(hello.clientEphemeral, pair.secret)};
  state_ = AwaitCookie{hash(request.cookie)};
  return request;
}

ServerHandshake::Step ServerHandshake::onVault(const Result<SealedCookie, DropReason>& answer) {
  auto* waiting = std::get_if<AwaitCookie>(&state_);
  CHECK(waiting != nullptr);
  if (!answer) return Drop{answer.error()};
  state_ = AwaitInitiate{waiting->issued};
  return wire::writeCookiePacket(answer->packet);
}

// protocol §3 step 4 and §7: only the cookie that this connection was given, and only while its minute key lives.
ServerHandshake::Step ServerHandshake::onInitiate(const wire::Initiate& initiate, const CookieKeys& keys) {
  if (!equalsConstantTime(hash(initiate.cookie).span(), std::get<AwaitInitiate>(state_).issued.span())) {
    return Drop{DropReason::UnknownCookie};
  }
  const auto cookie = keys.open(initiate.cookie);
  if (!cookie) return Drop{DropReason::ExpiredCookie};
  auto key = agree(cookie->clientEphemeral, cookie->secret);
  if (!key) return Drop{DropReason::LowOrderKey};
  std::array<std::byte, wire::INITIATE_BOX_BYTES - wire::BOX_TAG_BYTES> text;
  if (!openBox(text, initiate.box, ShortPrefix::ClientInitiate, wire::INITIATE_COUNTER, *key))
    return Drop{DropReason::BadBox};
  const wire::InitiateContent content = wire::parseInitiateContent(text);
  state_ = AwaitVerdict{std::move(*key), content.client};
  return VerifyVouchRequest{content.client, content.vouchNonce, content.vouch, cookie->clientEphemeral};
}

ServerHandshake::Step ServerHandshake::onVault(Result<VerifiedVouch, DropReason>&& answer) {
  auto* waiting = std::get_if<AwaitVerdict>(&state_);
  CHECK(waiting != nullptr);
  if (!answer) return Drop{answer.error()};
  Established established{Session(Role::Server, waiting->key), waiting->client, std::move(answer->peer)};
  state_ = Done{};
  return established;
}

// --- client ----------------------------------------------------------------------------------------------------------

size_t ClientHandshake::expectedPacketBytes() const {
  return std::holds_alternative<AwaitCookie>(state_) ? wire::COOKIE_PACKET_BYTES : 0;
}

ClientHandshake::Step ClientHandshake::start() {
  CHECK(std::holds_alternative<Idle>(state_));
  EphemeralPair pair = makeEphemeralPair();
  auto key = agree(server_, pair.secret);
  if (!key) return Drop{DropReason::LowOrderKey};
  static constexpr std::array<std::byte, wire::HELLO_ZERO_BYTES> ZEROS{};
  wire::Hello hello{pair.publicKey, {}};
  sealBox(hello.box, ZEROS, ShortPrefix::ClientHello, wire::HELLO_COUNTER, *key);
  state_ = AwaitCookie{std::move(pair), std::move(*key)};
  return wire::writeHello(hello);
}

// protocol §3 step 3: every box is checked; a server whose ephemeral key is all zeros or of low order is refused.
ClientHandshake::Step ClientHandshake::onPacket(ByteSpan packet) {
  auto* waiting = std::get_if<AwaitCookie>(&state_);
  if (waiting == nullptr) return Drop{DropReason::BadLength};
  const auto parsed = wire::parseCookiePacket(packet);
  if (!parsed) return Drop{parsed.error()};
  std::array<std::byte, wire::KEY_BYTES + wire::COOKIE_BYTES> text;
  if (!openCookieBox(text, parsed->box, parsed->nonce, waiting->helloKey)) return Drop{DropReason::BadBox};
  const PublicKey serverEphemeral{ByteSpan(text).first(wire::KEY_BYTES)};
  auto key = agree(serverEphemeral, waiting->pair.secret);
  if (!key) return Drop{DropReason::LowOrderKey};
  AwaitVouch next{waiting->pair.publicKey, std::move(*key), {}};
  std::memcpy(next.cookie.data(), text.data() + wire::KEY_BYTES, next.cookie.size());
  state_ = std::move(next);
  return MakeVouchRequest{std::get<AwaitVouch>(state_).clientEphemeral};
}

ClientHandshake::Step ClientHandshake::onVault(const Result<MadeVouch, DropReason>& answer) {
  auto* waiting = std::get_if<AwaitVouch>(&state_);
  CHECK(waiting != nullptr);
  if (!answer) return Drop{answer.error()};
  std::array<std::byte, wire::INITIATE_BOX_BYTES - wire::BOX_TAG_BYTES> text;
  std::memcpy(text.data(), answer->client.data(), wire::KEY_BYTES);
  std::memcpy(text.data() + wire::KEY_BYTES, answer->nonce.data(), wire::LONG_NONCE_BYTES);
  std::memcpy(text.data() + wire::KEY_BYTES + wire::LONG_NONCE_BYTES, answer->box.data(), wire::VOUCH_BYTES);
  wire::Initiate initiate{waiting->cookie, {}};
  sealBox(initiate.box, text, ShortPrefix::ClientInitiate, wire::INITIATE_COUNTER, waiting->key);
  std::pair<wire::InitiateFrame, Established> step{wire::writeInitiate(initiate),
                                                   Established{Session(Role::Client, waiting->key), server_, {}}};
  state_ = Done{};
  return step;
}

}  // namespace sallyport::netd
