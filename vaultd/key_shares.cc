#include "vaultd/key_shares.h"

#include <sodium.h>

#include <algorithm>

#include "vaultd/key_format.h"
#include "vaultd/key_text.h"

namespace sallyport::vaultd {

namespace {

constexpr std::string_view WORD = "sallyport-share-1";
constexpr size_t CHECK_BYTES = 4;

// GF(2^8) modulo x^8 + x^4 + x^3 + x + 1, as AES. Masks instead of branches and tables.
uint8_t times(uint8_t left, uint8_t right) {
  uint8_t product = 0;
  for (int bit = 0; bit < 8; ++bit) {
    product = static_cast<uint8_t>(product ^ (left & -(right & 1)));
    left = static_cast<uint8_t>((left << 1) ^ (0x1b & -(left >> 7)));
    right = static_cast<uint8_t>(right >> 1);
  }
  return product;
}

// left^254, which is 1/left.
uint8_t inverse(uint8_t value) {
  uint8_t result = 1;
  for (int bit = 7; bit >= 1; --bit) {
    result = times(result, result);
    result = times(result, value);
  }
  return times(result, result);
}

std::array<std::byte, CHECK_BYTES> checkOf(std::string_view text) {
  std::array<std::byte, 16> hash;
  CHECK(crypto_generichash_blake2b(uchars(MutableByteSpan(hash)), hash.size(), uchars(asBytes(text)), text.size(),
                                   nullptr, 0) == 0);
  std::array<std::byte, CHECK_BYTES> check;
  std::ranges::copy(std::span(hash).first<CHECK_BYTES>(), check.begin());
  return check;
}

Unexpected<Problem> unfit(std::string message, std::string hint) {
  return refuse(Problem{std::move(message), std::move(hint)});
}

}  // namespace

std::vector<Share> splitSecret(const ShareSecret& secret, std::string_view keyName, const ShareSet& set,
                               unsigned needed, unsigned total) {
  CHECK(2 <= needed && needed <= total && total <= MAX_SHARES);
  std::vector<Share> shares(total);
  // Horner's rule from the highest coefficient down; the last one is the secret itself.
  for (unsigned power = needed; power-- > 0;) {
    const ShareSecret coefficient = power == 0 ? ShareSecret(secret.expose()) : ShareSecret::random();
    for (unsigned i = 0; i < total; ++i) {
      for (size_t at = 0; at < ShareSecret::SIZE; ++at) {
        auto& value = shares[i].value.exposeData()[at];
        value = static_cast<uint8_t>(times(value, static_cast<uint8_t>(i + 1)) ^ coefficient.exposeData()[at]);
      }
    }
  }
  for (unsigned i = 0; i < total; ++i) {
    shares[i].keyName = std::string(keyName);
    shares[i].set = set;
    shares[i].needed = needed;
    shares[i].total = total;
    shares[i].x = i + 1;
  }
  return shares;
}

Result<SlotSecret, Problem> joinShares(std::span<const Share> shares) {
  if (shares.empty()) return unfit("no share was given", "each is a line that begins with `sallyport-share-1`");
  const Share& first = shares[0];
  for (size_t i = 1; i < shares.size(); ++i) {
    if (shares[i].set != first.set || shares[i].keyName != first.keyName || shares[i].needed != first.needed)
      return unfit("the shares are of different sets", "give shares that were printed together");
    for (size_t j = 0; j < i; ++j) {
      if (shares[j].x == shares[i].x)
        return unfit("share " + std::to_string(shares[i].x) + " is given twice", "each person has another one");
    }
  }
  if (shares.size() < first.needed) {
    return unfit(
        "only " + std::to_string(shares.size()) + " of " + std::to_string(first.needed) + " needed shares were given",
        "ask another holder");
  }
  // Lagrange at 0: the sum of each value times the product of x_j / (x_j - x_i).
  ShareSecret secret;
  for (size_t i = 0; i < first.needed; ++i) {
    uint8_t weight = 1;
    for (size_t j = 0; j < first.needed; ++j) {
      if (i == j) continue;
      const auto xj = static_cast<uint8_t>(shares[j].x);
      weight = times(weight, times(xj, inverse(static_cast<uint8_t>(xj ^ shares[i].x))));
    }
    for (size_t at = 0; at < ShareSecret::SIZE; ++at) {
      auto& byte = secret.exposeData()[at];
      byte = static_cast<uint8_t>(byte ^ times(shares[i].value.exposeData()[at], weight));
    }
  }
  SlotSecret joined;
  joined.kind = SealKind::Shares;
  CHECK(joined.text.append({reinterpret_cast<const char*>(secret.exposeData()), ShareSecret::SIZE}));
  return joined;
}

SecretText shareText(const Share& share) {
  SecretText text;
  CHECK(text.append(std::string(WORD) + " " + share.keyName + " " + std::to_string(share.needed) + " " +
                    std::to_string(share.total) + " " + std::to_string(share.x) + " " + toHex(share.set) + " ") &&
        appendHex(text, share.value.expose()));
  const auto check = checkOf(text.expose());
  CHECK(text.append(" ") && appendHex(text, check));
  return text;
}

Result<Share, Problem> parseShare(std::string_view line) {
  line = trimmed(line);
  std::string_view rest = line;
  if (takeWord(rest) != WORD) return unfit("not a share", "a share is one line that begins with `sallyport-share-1`");
  const size_t last = line.rfind(' ');
  std::array<std::byte, CHECK_BYTES> check;
  if (!decodeHexExactly(line.substr(last + 1), check) || check != checkOf(line.substr(0, last)))
    return unfit("a share is mistyped: its check sum doesn't fit", "compare it with what was printed");
  Share share;
  const auto name = takeWord(rest);
  const auto needed = parseNumber(takeWord(rest));
  const auto total = parseNumber(takeWord(rest));
  const auto x = parseNumber(takeWord(rest));
  const bool whole = needed && total && x && 2 <= *needed && *needed <= *total && *total <= MAX_SHARES && 1 <= *x &&
                     *x <= *total && isKeyName(name) && decodeHexExactly(takeWord(rest), share.set) &&
                     decodeHexExactly(takeWord(rest), share.value.exposeMutable());
  takeWord(rest);  // the check sum
  if (!whole || !rest.empty()) return unfit("not a share of this version", "use the sallyport that printed it");
  share.keyName = std::string(name);
  share.needed = static_cast<unsigned>(*needed);
  share.total = static_cast<unsigned>(*total);
  share.x = static_cast<unsigned>(*x);
  return share;
}

}  // namespace sallyport::vaultd
