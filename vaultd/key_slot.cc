#include "vaultd/key_slot.h"

#include <sodium.h>

#include <algorithm>

#include "vaultd/key_format.h"
#include "vaultd/key_text.h"

namespace sallyport::vaultd {

namespace {

constexpr std::string_view ALGORITHM = "argon2id13";
constexpr size_t PERSONAL_BYTES = crypto_generichash_blake2b_PERSONALBYTES;
constexpr unsigned char CREDENTIAL_PERSONAL[PERSONAL_BYTES + 1] = "sallyport-cred-1";
constexpr unsigned char SHARES_PERSONAL[PERSONAL_BYTES + 1] = "sallyport-share1";
constexpr unsigned char TOKEN_PERSONAL[PERSONAL_BYTES + 1] = "sallyport-token1";
static_assert(FileKey::SIZE == crypto_aead_xchacha20poly1305_ietf_KEYBYTES);
static_assert(FileKey::SIZE + crypto_aead_xchacha20poly1305_ietf_ABYTES == sizeof(Slot::wrapped));
static_assert(crypto_pwhash_argon2id_SALTBYTES == sizeof(Slot::salt));
// A wrapping key is made of a fresh salt and wraps once, so its nonce may stand still.
constexpr unsigned char ONLY_NONCE[crypto_aead_xchacha20poly1305_ietf_NPUBBYTES] = {};

constexpr TokenCipher TOKEN_CIPHERS[] = {TokenCipher::AesGcm, TokenCipher::OaepSha256, TokenCipher::OaepSha1};

const unsigned char* personalOf(SealKind kind) {
  if (kind == SealKind::Token) return TOKEN_PERSONAL;
  return kind == SealKind::SystemdCredential ? CREDENTIAL_PERSONAL : SHARES_PERSONAL;
}

// Base 32 without 0, 1, I, O: each is taken for another one.
constexpr std::string_view RECOVERY_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
static_assert(RECOVERY_LETTERS.size() == 32);

// No line of a slot can be moved to another key, and no field changed.
std::string authenticated(std::string_view keyName, const Slot& slot) {
  return "sallyport slot\n" + std::string(keyName) + "\n" + slotText(slot);
}

bool parseStretched(std::string_view rest, Slot& slot) {
  const auto algorithm = takeWord(rest);
  const auto ops = parseNumber(takeField(rest, "opslimit").value_or(""));
  const auto mem = parseNumber(takeField(rest, "memlimit").value_or(""));
  const auto salt = takeField(rest, "salt");
  if (algorithm != ALGORITHM || !ops || !mem || !salt || !rest.empty()) return false;
  slot.cost = {*ops, *mem};
  return decodeExactly(*salt, slot.salt);
}

bool parseCredential(std::string_view rest, Slot& slot) {
  const auto name = takeField(rest, "name");
  const auto salt = takeField(rest, "salt");
  if (!name || !salt || !rest.empty() || !isKeyName(*name)) return false;
  slot.credential = std::string(*name);
  return decodeExactly(*salt, slot.salt);
}

bool parseShares(std::string_view rest, Slot& slot) {
  const auto needed = parseNumber(takeField(rest, "needed").value_or(""));
  const auto total = parseNumber(takeField(rest, "total").value_or(""));
  const auto set = takeField(rest, "set");
  if (!needed || !total || !set || !rest.empty()) return false;
  if (*needed < 2 || *needed > *total || *total > MAX_SHARES) return false;
  slot.needed = static_cast<unsigned>(*needed);
  slot.total = static_cast<unsigned>(*total);
  return decodeExactly(*set, slot.salt);
}

// Bytes of at least one and at most `most`, in the file's one spelling.
bool takeBytes(const std::optional<std::string_view>& hex, size_t most, std::vector<std::byte>& bytes) {
  if (!hex || hex->empty() || hex->size() > 2 * most) return false;
  auto decoded = fromHex(*hex);
  if (!decoded) return false;
  bytes = std::move(*decoded);
  return true;
}

bool parseToken(std::string_view rest, Slot& slot) {
  const auto name = takeField(rest, "name");
  const auto cipher = takeField(rest, "cipher");
  const auto key = takeField(rest, "key");
  const auto blob = takeField(rest, "blob");
  const auto salt = takeField(rest, "salt");
  if (!name || !cipher || !salt || !rest.empty() || !isKeyName(*name)) return false;
  const auto* known = std::ranges::find(TOKEN_CIPHERS, *cipher, [](TokenCipher each) { return describe(each); });
  if (known == std::end(TOKEN_CIPHERS)) return false;
  slot.token = std::string(*name);
  slot.tokenWrap.cipher = *known;
  return takeBytes(key, MAX_TOKEN_ID_BYTES, slot.tokenWrap.keyId) &&
         takeBytes(blob, MAX_TOKEN_BLOB_BYTES, slot.tokenWrap.blob) && decodeExactly(*salt, slot.salt);
}

Result<void, Problem> checkSealing(const Sealing& sealing) {
  CHECK(sealing.kind != SealKind::Plain && sealing.secret != nullptr);
  if (sealing.secret->empty())
    return refuse(Problem{"an empty passphrase protects nothing", "give one, or make a plain key"});
  if (sealing.kind == SealKind::SystemdCredential && !isKeyName(sealing.credential)) {
    return refuse(
        Problem{"not a name for a credential: `" + sealing.credential + "`", "use letters, digits, `.`, `_` and `-`"});
  }
  if (sealing.kind == SealKind::Token) {
    const TokenWrap& wrap = sealing.tokenWrap;
    CHECK(isKeyName(sealing.token) && sealing.secret->size() == TokenSecret::SIZE);
    CHECK(!wrap.keyId.empty() && wrap.keyId.size() <= MAX_TOKEN_ID_BYTES);
    CHECK(!wrap.blob.empty() && wrap.blob.size() <= MAX_TOKEN_BLOB_BYTES);
  }
  return {};
}

}  // namespace

std::string_view describe(TokenCipher cipher) {
  switch (cipher) {
    case TokenCipher::AesGcm: return "aes-gcm";
    case TokenCipher::OaepSha256: return "rsa-oaep-sha256";
    case TokenCipher::OaepSha1: return "rsa-oaep-sha1";
  }
  return "unknown";
}

std::string_view describe(SealKind kind) {
  switch (kind) {
    case SealKind::Plain: return "plain file";
    case SealKind::Passphrase: return "passphrase";
    case SealKind::SystemdCredential: return "systemd credential";
    case SealKind::Recovery: return "recovery passphrase";
    case SealKind::Shares: return "shares";
    case SealKind::Token: return "token";
  }
  return "unknown";
}

std::string slotText(const Slot& slot) {
  const auto stretched = [&](std::string_view kind) {
    return std::string(kind) + " " + std::string(ALGORITHM) + " opslimit=" + std::to_string(slot.cost.opsLimit) +
           " memlimit=" + std::to_string(slot.cost.memLimitBytes) + " salt=" + toBase64(slot.salt);
  };
  switch (slot.kind) {
    case SealKind::Plain: return "plain";
    case SealKind::Passphrase: return stretched("passphrase");
    case SealKind::Recovery: return stretched("recovery");
    case SealKind::SystemdCredential:
      return "systemd-credential name=" + slot.credential + " salt=" + toBase64(slot.salt);
    case SealKind::Shares:
      return "shares needed=" + std::to_string(slot.needed) + " total=" + std::to_string(slot.total) +
             " set=" + toBase64(slot.salt);
    case SealKind::Token:
      return "token name=" + slot.token + " cipher=" + std::string(describe(slot.tokenWrap.cipher)) +
             " key=" + toHex(slot.tokenWrap.keyId) + " blob=" + toHex(slot.tokenWrap.blob) +
             " salt=" + toBase64(slot.salt);
  }
  return {};
}

bool parseSlotText(std::string_view text, Slot& slot) {
  const auto kind = takeWord(text);
  if (kind == "plain") {
    slot.kind = SealKind::Plain;
    return text.empty();
  }
  if (kind == "passphrase" || kind == "recovery") {
    slot.kind = kind == "passphrase" ? SealKind::Passphrase : SealKind::Recovery;
    return parseStretched(text, slot);
  }
  if (kind == "systemd-credential") {
    slot.kind = SealKind::SystemdCredential;
    return parseCredential(text, slot);
  }
  if (kind == "token") {
    slot.kind = SealKind::Token;
    return parseToken(text, slot);
  }
  slot.kind = SealKind::Shares;
  return kind == "shares" && parseShares(text, slot);
}

Result<FileKey, Problem> stretch(const Slot& slot, const SecretText& secret) {
  CHECK(slot.kind != SealKind::Plain);
  FileKey key;
  const auto* bytes = reinterpret_cast<const unsigned char*>(secret.expose().data());
  if (slot.kind == SealKind::Passphrase || slot.kind == SealKind::Recovery) {
    if (slot.cost.opsLimit < crypto_pwhash_argon2id_OPSLIMIT_MIN || slot.cost.opsLimit > MAX_OPS_LIMIT ||
        slot.cost.memLimitBytes < crypto_pwhash_argon2id_MEMLIMIT_MIN ||
        slot.cost.memLimitBytes > MAX_MEM_LIMIT_BYTES) {
      return refuse(damagedKeyFile("passphrase costs out of range"));
    }
    if (crypto_pwhash_argon2id(key.exposeData(), FileKey::SIZE, secret.expose().data(), secret.size(),
                               uchars(ByteSpan(slot.salt)), slot.cost.opsLimit, slot.cost.memLimitBytes,
                               crypto_pwhash_argon2id_ALG_ARGON2ID13) != 0) {
      return refuse(
          Problem{"not enough memory to try the passphrase (" + std::to_string(slot.cost.memLimitBytes >> 20) + " MiB)",
                  "raise the memory limit of this process"});
    }
    return key;
  }
  const bool credential = slot.kind == SealKind::SystemdCredential;
  if (slot.kind == SealKind::Token && secret.size() != TokenSecret::SIZE) return refuse(wrongSecret(slot));
  if (credential && secret.size() < MIN_CREDENTIAL_BYTES) {
    return refuse(Problem{"the credential `" + slot.credential + "` is shorter than 32 bytes",
                          "make it from 32 random bytes, e.g. `head -c32 /dev/urandom | systemd-creds encrypt`"});
  }
  CHECK(crypto_generichash_blake2b_salt_personal(key.exposeData(), FileKey::SIZE, bytes, secret.size(), nullptr, 0,
                                                 uchars(ByteSpan(slot.salt)), personalOf(slot.kind)) == 0);
  return key;
}

Result<Slot, Problem> makeSlot(std::string_view keyName, uint32_t number, const Sealing& sealing, const FileKey& key) {
  Slot slot;
  slot.number = number;
  slot.kind = sealing.kind;
  if (sealing.kind == SealKind::Plain) return slot;
  if (auto good = checkSealing(sealing); !good) return refuse(good.error());
  slot.cost = sealing.cost;
  slot.credential = sealing.credential;
  slot.needed = sealing.needed;
  slot.total = sealing.total;
  slot.token = sealing.token;
  slot.tokenWrap = sealing.tokenWrap;
  if (sealing.kind == SealKind::Shares)
    slot.salt = sealing.shareSet;
  else
    fillRandom(slot.salt);
  const auto wrapping = stretch(slot, *sealing.secret);
  if (!wrapping) return refuse(wrapping.error());
  const std::string bound = authenticated(keyName, slot);
  crypto_aead_xchacha20poly1305_ietf_encrypt(uchars(MutableByteSpan(slot.wrapped)), nullptr, key.exposeData(),
                                             FileKey::SIZE, uchars(asBytes(bound)), bound.size(), nullptr, ONLY_NONCE,
                                             wrapping->exposeData());
  return slot;
}

Result<FileKey, Problem> openSlot(std::string_view keyName, const Slot& slot, const SecretText& secret) {
  const auto wrapping = stretch(slot, secret);
  if (!wrapping) return refuse(wrapping.error());
  const std::string bound = authenticated(keyName, slot);
  FileKey key;
  if (!reveal(crypto_aead_xchacha20poly1305_ietf_decrypt(
                  key.exposeData(), nullptr, nullptr, uchars(ByteSpan(slot.wrapped)), slot.wrapped.size(),
                  uchars(asBytes(bound)), bound.size(), ONLY_NONCE, wrapping->exposeData()) == 0)) {
    return refuse(wrongSecret(slot));
  }
  return key;
}

std::array<std::byte, 32> tokenBound(std::string_view keyName) {
  const std::string text = "sallyport token slot\n" + std::string(keyName);
  std::array<std::byte, 32> bound;
  CHECK(crypto_generichash_blake2b(uchars(MutableByteSpan(bound)), bound.size(), uchars(asBytes(text)), text.size(),
                                   nullptr, 0) == 0);
  return bound;
}

Problem wrongSecret(const Slot& slot) {
  switch (slot.kind) {
    case SealKind::SystemdCredential:
      return {"the credential `" + slot.credential + "` is another one, or the file was changed",
              "use the credential that the key was sealed with, or restore the file from a backup"};
    case SealKind::Token:
      return {"what token " + slot.token + " unwraps doesn't open this key: the file was changed",
              "restore the file from a backup, or open it by another slot"};
    case SealKind::Shares:
      return {"the shares don't open this key, or the file was changed",
              "use the shares that were printed for it, or restore the file from a backup"};
    default:
      return {"the passphrase is wrong, or the file was changed",
              "try again; if the passphrase is right, restore the file from a backup"};
  }
}

SecretText newRecoveryPassphrase() {
  const auto random = SecretBytes<struct RecoveryTag, 32>::random();  // one byte a letter, 32 letters
  SecretText text;
  for (size_t i = 0; i < random.expose().size(); ++i) {
    if (i > 0 && i % 4 == 0) CHECK(text.append("-"));
    // Five bits of a uniform byte are uniform.
    CHECK(text.append(RECOVERY_LETTERS.substr(static_cast<size_t>(random.expose()[i]) & 31, 1)));
  }
  return text;
}

SecretText normalRecoveryPassphrase(std::string_view typed) {
  SecretText text;
  for (const char c : typed) {
    const char upper = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    if (upper == '-' || upper == ' ' || upper == '\t' || upper == '\r' || upper == '\n') continue;
    CHECK(text.append({&upper, 1}));
  }
  return text;
}

}  // namespace sallyport::vaultd
