// cookie_keys.cc - see cookie_keys.h.
#include "netd/cookie_keys.h"

#include <sodium.h>

#include <cstring>

namespace sallyport::netd {

namespace {

using CookieText = std::array<std::byte, 2 * wire::KEY_BYTES>;

std::array<unsigned char, crypto_secretbox_NONCEBYTES> minuteNonce(
    std::span<const std::byte, wire::LONG_NONCE_BYTES> r) {
  std::array<unsigned char, crypto_secretbox_NONCEBYTES> nonce;
  std::memcpy(nonce.data(), "minute-k", 8);
  std::memcpy(nonce.data() + 8, r.data(), r.size());
  return nonce;
}

}  // namespace

void CookieKeys::rotate(MinuteKey fresh) {
  if (current_) { previous_ = std::move(*current_); }
  current_ = std::move(fresh);
}

Cookie CookieKeys::seal(const PublicKey& clientEphemeral, const EphemeralSecret& secret) const {
  CHECK(current_.has_value());
  Cookie cookie;
  auto r = std::span(cookie).first<wire::LONG_NONCE_BYTES>();
  fillRandom(r);
  CookieText text;
  std::memcpy(text.data(), clientEphemeral.data(), wire::KEY_BYTES);
  std::memcpy(text.data() + wire::KEY_BYTES, secret.exposeData(), wire::KEY_BYTES);
  const auto nonce = minuteNonce(r);
  crypto_secretbox_easy(uchars(MutableByteSpan(cookie).subspan(wire::LONG_NONCE_BYTES)), uchars(ByteSpan(text)),
                        text.size(), nonce.data(), current_->exposeData());
  wipe(text);
  return cookie;
}

std::optional<CookieContent> CookieKeys::open(const Cookie& cookie) const {
  const auto nonce = minuteNonce(std::span(cookie).first<wire::LONG_NONCE_BYTES>());
  const ByteSpan box = std::span(cookie).subspan<wire::LONG_NONCE_BYTES>();
  for (const auto* key : {&current_, &previous_}) {
    CookieText text;
    if (!key->has_value() || crypto_secretbox_open_easy(uchars(MutableByteSpan(text)), uchars(box), box.size(),
                                                        nonce.data(), (*key)->exposeData()) != 0) {
      continue;
    }
    CookieContent content{PublicKey(std::span(text).first<wire::KEY_BYTES>()),
                          EphemeralSecret(std::span(text).last<wire::KEY_BYTES>())};
    wipe(text);
    return content;
  }
  return std::nullopt;
}

}  // namespace sallyport::netd
