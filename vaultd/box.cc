#include "vaultd/box.h"

#include <sodium.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

namespace sallyport::vaultd {

namespace {

static_assert(crypto_box_BEFORENMBYTES == 32 && crypto_box_MACBYTES == wire::BOX_TAG_BYTES);
static_assert(crypto_box_NONCEBYTES == wire::BOX_NONCE_BYTES);

// What one operation leaves below our frame: measured less than 2 KiB for X25519 and for a box.
constexpr size_t DEAD_STACK_BYTES = 8192;
constexpr size_t LOADING_STACK_BYTES = 256 * 1024;
constexpr size_t DEEPEST_STACK_BYTES = 1024 * 1024;  // the kernel keeps as much free below every stack

using BoxNonce = std::array<unsigned char, crypto_box_NONCEBYTES>;

BoxNonce nonceOf(BoxRole role, const LongNonceBytes& rest) {
  BoxNonce nonce;
  const std::string_view prefix = prefixOf(role);
  std::memcpy(nonce.data(), prefix.data(), prefix.size());
  std::memcpy(nonce.data() + prefix.size(), rest.data(), LongNonceBytes::SIZE);
  return nonce;
}

// "CurveCP-client-H" and the counter 0: the Hello is the first box of its ephemeral key.
constexpr BoxNonce helloNonce() {
  constexpr std::string_view PREFIX = "CurveCP-client-H";
  BoxNonce nonce{};
  for (size_t i = 0; i < PREFIX.size(); ++i) nonce[i] = static_cast<unsigned char>(PREFIX[i]);
  return nonce;
}
constexpr BoxNonce HELLO_NONCE = helloNonce();

const unsigned char* data(SharedKeyView key) { return uchars(ByteSpan(key)); }

bool open(MutableByteSpan out, ByteSpan box, const BoxNonce& nonce, SharedKeyView key) {
  CHECK(out.size() + crypto_box_MACBYTES == box.size());
  return reveal(crypto_box_open_easy_afternm(uchars(out), uchars(box), box.size(), nonce.data(), data(key)) == 0);
}

void seal(MutableByteSpan out, ByteSpan text, const BoxNonce& nonce, SharedKeyView key) {
  CHECK(text.size() + crypto_box_MACBYTES == out.size());
  CHECK(crypto_box_easy_afternm(uchars(out), uchars(text), text.size(), nonce.data(), data(key)) == 0);
}

class WipedAtEnd {
 public:
  explicit WipedAtEnd(SecretSlot& slot) : slot_(slot) {}
  ~WipedAtEnd() { slot_.wipe(); }

 private:
  SecretSlot& slot_;
};

}  // namespace

bool isLowOrder(const PublicKey& point) {
  // RFC 7748: 0, 1, the two of order 8, p - 1, and what is the same beyond p; the highest bit doesn't count.
  constexpr std::array<std::array<unsigned char, 32>, 7> POINTS = {{
      {0x00},
      {0x01},
      {0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
       0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
      {0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
       0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
      {0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
       0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
      {0xed, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
       0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
      {0xee, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
       0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
  }};
  // Public values: ordinary comparison.
  return std::ranges::any_of(POINTS, [&](const auto& low) {
    return std::memcmp(low.data(), point.data(), 31) == 0 && low[31] == (point.data()[31] & 0x7f);
  });
}

void wipeDeadStack() { sodium_stackzero(DEAD_STACK_BYTES); }
void wipeDeadStackOfLoading() {
  sodium_stackzero(LOADING_STACK_BYTES);
  // What lies deeper, and whole pages of this, are the system's again: they read as zeros if they are ever needed.
  static const auto PAGE = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  const uintptr_t end = (here - DEAD_STACK_BYTES) & ~(PAGE - 1);
  const uintptr_t begin = (here - DEEPEST_STACK_BYTES) & ~(PAGE - 1);
  // ENOMEM: the stack was never so deep. What there is of it was given back all the same.
  static_cast<void>(
      madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED));  // NOLINT(performance-no-int-to-ptr)
}

LongTermBox::LongTermBox(SecretArena& arena, SharedKeyCache& cache, SharedKeyCache::KeyId id,
                         const LongTermSecret& secret)
    : cache_(cache), id_(id), secret_(arena.takeSlot()), scratch_(arena.takeSlot()), publicKey_(publicKeyOf(secret)) {
  std::memcpy(secret_.exposeMutable<32>().data(), secret.exposeData(), 32);
}

LongTermBox::LongTermBox(SecretArena& arena, SharedKeyCache& cache, SharedKeyCache::KeyId id,
                         const TokenResults& results, const PublicKey& publicKey)
    : cache_(cache), id_(id), results_(&results), scratch_(arena.takeSlot()), publicKey_(publicKey) {}

Result<SharedKeyView, Refusal> LongTermBox::sharedKey(const PublicKey& peer, bool& cached) {
  const auto known = cache_.find(id_, peer);
  cached = known.has_value();
  if (known) return *known;
  if (auto done = multiply(peer); !done) return refuse(done.error());
  return SharedKeyView(scratch_.expose<32>());
}

Result<void, Refusal> LongTermBox::multiply(const PublicKey& peer) {
  const auto into = scratch_.exposeMutable<32>();
  if (results_ == nullptr) {
    // -1: the result of the scalar multiplication is all zero, so `peer` is one of the points of low order.
    if (reveal(crypto_box_beforenm(uchars(MutableByteSpan(into)), peer.data(),
                                   uchars(ByteSpan(secret_.expose<32>()))) == 0))
      return {};
    return refuse(Refusal::LOW_ORDER_KEY);
  }
  // Judged by us: what tokens say to such points differs, and isn't asked.
  if (isLowOrder(peer)) return refuse(Refusal::LOW_ORDER_KEY);
  const SecretSlot* derived = results_->derived(id_, peer);
  if (derived == nullptr) return refuse(Refusal::HSM_UNAVAILABLE);
  const ByteSpan raw = derived->expose<32>();
  if (reveal(sodium_is_zero(uchars(raw), raw.size()) == 1)) return refuse(Refusal::HSM_UNAVAILABLE);
  // The other half of crypto_box_beforenm.
  constexpr std::array<unsigned char, crypto_core_hsalsa20_INPUTBYTES> ZERO{};
  static_assert(crypto_core_hsalsa20_OUTPUTBYTES == 32 && crypto_core_hsalsa20_KEYBYTES == 32);
  CHECK(crypto_core_hsalsa20(uchars(MutableByteSpan(into)), ZERO.data(), uchars(raw), nullptr) == 0);
  return {};
}

void LongTermBox::remember(const PublicKey& peer, SharedKeyView key) {
  // A key is in a token so that nobody can take it out: no shared key of it stays here either.
  if (results_ == nullptr) cache_.insert(id_, peer, key);
}

Result<LongNonceBytes, Refusal> LongTermBox::sealCookie(const HelloStep& step, NonceSource<BoxRole::Cookie>& nonces,
                                                        NonceBatch& batch,
                                                        std::span<std::byte, wire::COOKIE_PACKET_BOX_BYTES> out) {
  // Never through the cache: an ephemeral key comes once.
  WipedAtEnd wiped(scratch_);
  if (auto done = multiply(step.clientEphemeral); !done) return refuse(done.error());
  const SharedKeyView key = scratch_.expose<32>();

  std::array<std::byte, wire::HELLO_ZERO_BYTES> zeros;
  if (!open(zeros, step.box, HELLO_NONCE, key)) return refuse(Refusal::BAD_BOX);
  // "64 zero bytes": the original server demands exactly them. Constant time, as everything that comes out of a box.
  if (!reveal(sodium_is_zero(uchars(ByteSpan(zeros)), zeros.size()) == 1)) return refuse(Refusal::BAD_BOX);

  auto nonce = nonces.draw(batch);
  if (!nonce) return refuse(Refusal::NONCE_UNAVAILABLE);
  const LongNonceBytes nonceBytes = std::move(*nonce).spend();

  std::array<std::byte, wire::KEY_BYTES + wire::COOKIE_BYTES> text;
  std::memcpy(text.data(), step.serverEphemeral.data(), wire::KEY_BYTES);
  std::memcpy(text.data() + wire::KEY_BYTES, step.cookie.data(), wire::COOKIE_BYTES);
  seal(out, text, nonceOf(BoxRole::Cookie, nonceBytes), key);
  return nonceBytes;
}

Result<void, Refusal> LongTermBox::verifyVouch(const VouchStep& step, bool mayRemember, bool& cached) {
  WipedAtEnd wiped(scratch_);
  const auto key = sharedKey(step.client, cached);
  if (!key) return refuse(key.error());
  PublicKey vouched;
  if (!open(vouched.mutableSpan(), step.box, nonceOf(BoxRole::Vouch, step.nonce), *key)) {
    // A quicker no would tell a stranger whose key was here lately: the multiplication that the cache saved is made up.
    if (cached) static_cast<void>(multiply(step.client));
    return refuse(Refusal::BAD_BOX);
  }
  if (!reveal(equalsConstantTime(vouched.span(), step.clientEphemeral.span()))) return refuse(Refusal::BAD_BOX);
  if (mayRemember && !cached) remember(step.client, *key);
  return {};
}

Result<LongNonceBytes, Refusal> LongTermBox::makeVouch(const PublicKey& server, const PublicKey& clientEphemeral,
                                                       NonceSource<BoxRole::Vouch>& nonces, NonceBatch& batch,
                                                       std::span<std::byte, wire::VOUCH_BYTES> out, bool& cached) {
  WipedAtEnd wiped(scratch_);
  const auto key = sharedKey(server, cached);
  if (!key) return refuse(key.error());
  auto nonce = nonces.draw(batch);
  if (!nonce) return refuse(Refusal::NONCE_UNAVAILABLE);
  const LongNonceBytes nonceBytes = std::move(*nonce).spend();
  seal(out, clientEphemeral.span(), nonceOf(BoxRole::Vouch, nonceBytes), *key);
  if (!cached) remember(server, *key);
  return nonceBytes;
}

bool isAppNonce(const AppNonceBytes& nonce) {
  constexpr std::string_view PREFIX = prefixOf(BoxRole::Application);
  return std::memcmp(nonce.data(), PREFIX.data(), PREFIX.size()) == 0;
}

Result<AppNonceBytes, Refusal> LongTermBox::sealText(const PublicKey& peer, ByteSpan text,
                                                     NonceSource<BoxRole::Application>& nonces, NonceBatch& batch,
                                                     MutableByteSpan out, bool mayRemember, bool& cached) {
  WipedAtEnd wiped(scratch_);
  const auto key = sharedKey(peer, cached);
  if (!key) return refuse(key.error());
  auto drawn = nonces.draw(batch);
  if (!drawn) return refuse(Refusal::NONCE_UNAVAILABLE);
  const BoxNonce nonce = nonceOf(BoxRole::Application, std::move(*drawn).spend());
  seal(out, text, nonce, *key);
  if (mayRemember && !cached) remember(peer, *key);
  return AppNonceBytes(std::as_bytes(std::span(nonce)));
}

Result<void, Refusal> LongTermBox::openText(const PublicKey& peer, const AppNonceBytes& nonce, ByteSpan box,
                                            MutableByteSpan out, bool mayRemember, bool& cached) {
  if (!isAppNonce(nonce)) return refuse(Refusal::BAD_NONCE);
  WipedAtEnd wiped(scratch_);
  const auto key = sharedKey(peer, cached);
  if (!key) return refuse(key.error());
  BoxNonce nonceBytes;
  std::memcpy(nonceBytes.data(), nonce.data(), nonceBytes.size());
  if (!open(out, box, nonceBytes, *key)) {
    if (cached) static_cast<void>(multiply(peer));  // as in verifyVouch
    return refuse(Refusal::BAD_BOX);
  }
  if (mayRemember && !cached) remember(peer, *key);
  return {};
}

Result<void, Refusal> LongTermBox::openAnonymous(ByteSpan box, MutableByteSpan out) {
  CHECK(box.size() == out.size() + SEALED_BOX_BYTES);
  const PublicKey ephemeral(box.first(PublicKey::SIZE));
  WipedAtEnd wiped(scratch_);
  if (auto done = multiply(ephemeral); !done) return refuse(done.error());
  // libsodium's: BLAKE2b-192 of both public keys.
  BoxNonce nonce;
  crypto_generichash_state hash;
  crypto_generichash_init(&hash, nullptr, 0, nonce.size());
  crypto_generichash_update(&hash, ephemeral.data(), PublicKey::SIZE);
  crypto_generichash_update(&hash, publicKey_.data(), PublicKey::SIZE);
  crypto_generichash_final(&hash, nonce.data(), nonce.size());
  if (!open(out, box.subspan(PublicKey::SIZE), nonce, scratch_.expose<32>())) return refuse(Refusal::BAD_BOX);
  return {};
}

bool boxSelfTest() {
  // The Hello of tests/vectors/curve_tun.json: its box comes from the original implementation.
  constexpr std::array<unsigned char, 32> SERVER = {0x51, 0x0d, 0x65, 0x34, 0x1d, 0x6d, 0x88, 0xc4, 0x56, 0x5b, 0x22,
                                                    0x5b, 0x03, 0x13, 0x96, 0x03, 0xd7, 0x2b, 0xd2, 0x09, 0xf2, 0x92,
                                                    0x77, 0xbc, 0x99, 0xf5, 0x4e, 0xe8, 0x5e, 0x71, 0x25, 0x2f};
  constexpr std::array<unsigned char, wire::BOX_TAG_BYTES> TAG = {0x65, 0xec, 0xf2, 0x67, 0x5e, 0x59, 0x6a, 0x3f,
                                                                  0x4d, 0x9a, 0xdc, 0x88, 0x09, 0x16, 0xbb, 0xb4};
  std::array<unsigned char, 32> secret;
  secret.fill(0x33);
  const std::array<unsigned char, wire::HELLO_ZERO_BYTES> text{};
  std::array<unsigned char, wire::HELLO_BOX_BYTES> box;
  std::array<unsigned char, wire::HELLO_ZERO_BYTES> opened;
  opened.fill(1);
  return crypto_box_easy(box.data(), text.data(), text.size(), HELLO_NONCE.data(), SERVER.data(), secret.data()) == 0 &&
         std::memcmp(box.data(), TAG.data(), TAG.size()) == 0 &&
         crypto_box_open_easy(opened.data(), box.data(), box.size(), HELLO_NONCE.data(), SERVER.data(),
                              secret.data()) == 0 &&
         opened == text;
}

}  // namespace sallyport::vaultd
