#include "vaultd/key_format.h"

#include <sodium.h>

#include <charconv>
#include <ctime>
#include <optional>

namespace sallyport::vaultd {

namespace {

constexpr std::string_view FIRST_LINE_WORD = "sallyport key ";
constexpr std::string_view ALGORITHM = "argon2id13";
constexpr size_t SECRET_BYTES = LongTermSecret::SIZE;
constexpr size_t SEALED_BYTES = SECRET_BYTES + crypto_aead_xchacha20poly1305_ietf_ABYTES;
static_assert(SEALED_BYTES == 48);
static_assert(crypto_pwhash_argon2id_SALTBYTES == 16 && crypto_aead_xchacha20poly1305_ietf_NPUBBYTES == 24);
constexpr unsigned char CREDENTIAL_PERSONAL[crypto_generichash_blake2b_PERSONALBYTES + 1] = "sallyport-cred-1";

static_assert(FileKey::SIZE == crypto_aead_xchacha20poly1305_ietf_KEYBYTES);

// Exactly out.size() bytes of canonical, padded base64, straight into `out`: no copy in between that would need wiping.
bool decodeExactly(std::string_view text, MutableByteSpan out) {
  size_t size = 0;
  const char* end = nullptr;
  if (sodium_base642bin(uchars(out), out.size(), text.data(), text.size(), nullptr, &size, &end,
                        sodium_base64_VARIANT_ORIGINAL) != 0) {
    return false;
  }
  return size == out.size() && end == text.data() + text.size();
}

bool appendBase64(SecretText& text, ByteSpan bytes) {
  const size_t needed = sodium_base64_ENCODED_LEN(bytes.size(), sodium_base64_VARIANT_ORIGINAL);  // with the final 0
  if (text.room().size() < needed) return false;
  sodium_bin2base64(reinterpret_cast<char*>(text.room().data()), needed, uchars(bytes), bytes.size(),
                    sodium_base64_VARIANT_ORIGINAL);
  text.grow(needed - 1);
  return true;
}

std::optional<uint64_t> parseNumber(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

// Reads one line after the other; a missing newline at the end is how truncation shows.
class Lines {
 public:
  explicit Lines(std::string_view text) : text_(text) {}
  std::optional<std::string_view> next() {
    const size_t end = text_.find('\n', position_);
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view line = text_.substr(position_, end - position_);
    position_ = end + 1;
    return line;
  }
  // The value of the next line if it is `key: value`.
  std::optional<std::string_view> value(std::string_view key) {
    const size_t before = position_;
    const auto line = next();
    if (line && line->size() > key.size() + 2 && line->starts_with(key) && line->substr(key.size(), 2) == ": ") {
      return line->substr(key.size() + 2);
    }
    position_ = before;
    return std::nullopt;
  }
  bool atEnd() const { return position_ == text_.size(); }
  bool cutHere() const { return text_.find('\n', position_) == std::string_view::npos; }
  size_t position() const { return position_; }

 private:
  std::string_view text_;
  size_t position_ = 0;
};

// Takes `key=value` off the front of `rest`.
std::optional<std::string_view> takeField(std::string_view& rest, std::string_view key) {
  if (rest.empty()) return std::nullopt;
  const size_t end = rest.find(' ');
  const std::string_view field = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  if (!field.starts_with(key) || field.size() <= key.size() || field[key.size()] != '=') return std::nullopt;
  return field.substr(key.size() + 1);
}

bool parsePassphraseSeal(std::string_view rest, KeyHeader& header) {
  const auto ops = takeField(rest, "opslimit");
  const auto mem = takeField(rest, "memlimit");
  const auto salt = takeField(rest, "salt");
  if (!ops || !mem || !salt || !rest.empty()) return false;
  const auto opsLimit = parseNumber(*ops);
  const auto memLimit = parseNumber(*mem);
  if (!opsLimit || !memLimit) return false;
  header.cost = {*opsLimit, *memLimit};
  return decodeExactly(*salt, header.salt);
}

bool parseCredentialSeal(std::string_view rest, KeyHeader& header) {
  const auto name = takeField(rest, "name");
  const auto salt = takeField(rest, "salt");
  if (!name || !salt || !rest.empty() || !isKeyName(*name)) return false;
  header.credential = std::string(*name);
  return decodeExactly(*salt, header.salt);
}

bool parseSeal(std::string_view text, KeyHeader& header) {
  constexpr std::string_view PASSPHRASE = "passphrase argon2id13 ";
  constexpr std::string_view CREDENTIAL = "systemd-credential ";
  if (text == "plain") {
    header.seal = SealKind::Plain;
    return true;
  }
  if (text.starts_with(PASSPHRASE)) {
    header.seal = SealKind::Passphrase;
    return parsePassphraseSeal(text.substr(PASSPHRASE.size()), header);
  }
  if (text.starts_with(CREDENTIAL)) {
    header.seal = SealKind::SystemdCredential;
    return parseCredentialSeal(text.substr(CREDENTIAL.size()), header);
  }
  return false;
}

Problem damaged(std::string_view what) {
  return {"damaged key file: " + std::string(what), "restore it from a backup; nothing was changed"};
}

Result<void, Problem> parseFirstLine(std::string_view line) {
  if (!line.starts_with(FIRST_LINE_WORD)) {
    return refuse(Problem{"not a sallyport key file", "import a raw key with `sallyport key import NAME`"});
  }
  if (line.substr(FIRST_LINE_WORD.size()) != "1") {
    return refuse(Problem{"a key file of another version (this program reads version 1)",
                          "use the version of sallyport that wrote it, or a newer one"});
  }
  return {};
}

Result<FileKey, Problem> sealingKey(const KeyHeader& header, const SecretText& secret) {
  FileKey key;
  if (header.seal == SealKind::Passphrase) {
    if (header.cost.opsLimit < crypto_pwhash_argon2id_OPSLIMIT_MIN || header.cost.opsLimit > MAX_OPS_LIMIT ||
        header.cost.memLimitBytes < crypto_pwhash_argon2id_MEMLIMIT_MIN ||
        header.cost.memLimitBytes > MAX_MEM_LIMIT_BYTES) {
      return refuse(damaged("passphrase costs out of range"));
    }
    if (crypto_pwhash_argon2id(key.exposeData(), FileKey::SIZE, secret.expose().data(), secret.size(),
                               uchars(ByteSpan(header.salt)), header.cost.opsLimit, header.cost.memLimitBytes,
                               crypto_pwhash_argon2id_ALG_ARGON2ID13) != 0) {
      return refuse(Problem{
          "not enough memory to try the passphrase (" + std::to_string(header.cost.memLimitBytes >> 20) + " MiB)",
          "raise the memory limit of this process"});
    }
    return key;
  }
  if (secret.size() < MIN_CREDENTIAL_BYTES) {
    return refuse(Problem{"the credential `" + header.credential + "` is shorter than 32 bytes",
                          "make it from 32 random bytes, e.g. `head -c32 /dev/urandom | systemd-creds encrypt`"});
  }
  CHECK(crypto_generichash_blake2b_salt_personal(
            key.exposeData(), FileKey::SIZE, reinterpret_cast<const unsigned char*>(secret.expose().data()),
            secret.size(), nullptr, 0, uchars(ByteSpan(header.salt)), CREDENTIAL_PERSONAL) == 0);
  return key;
}

std::string nowUtc() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

std::string headerText(const KeyHeader& header) {
  std::string text = std::string(FIRST_LINE_WORD) + "1\nname: " + header.name +
                     "\nkind: x25519\npublic: " + toBase64(header.versions[0].publicKey.span()) +
                     "\ncreated: " + header.created + "\nseal: ";
  switch (header.seal) {
    case SealKind::Plain: return text + "plain\n";
    case SealKind::Passphrase:
      text += "passphrase " + std::string(ALGORITHM) + " opslimit=" + std::to_string(header.cost.opsLimit) +
              " memlimit=" + std::to_string(header.cost.memLimitBytes);
      break;
    case SealKind::SystemdCredential: text += "systemd-credential name=" + header.credential; break;
  }
  return text + " salt=" + toBase64(header.salt) + "\nnonce: " + toBase64(header.nonce) + "\n";
}

bool isSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

}  // namespace

std::string_view describe(SealKind kind) {
  switch (kind) {
    case SealKind::Plain: return "plain file";
    case SealKind::Passphrase: return "passphrase";
    case SealKind::SystemdCredential: return "systemd credential";
  }
  return "unknown";
}

bool isKeyName(std::string_view name) {
  // Not std::isalnum: what is a letter must not depend on a locale.
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); };
  if (name.empty() || name.size() > 64 || !plain(name.front())) return false;
  for (char c : name) {
    if (!plain(c) && c != '_' && c != '.' && c != '-') return false;
  }
  return true;
}

PublicKey publicKeyOf(const LongTermSecret& secret) {
  PublicKey result;
  CHECK(crypto_scalarmult_base(result.data(), secret.exposeData()) == 0);
  return result;
}

const KeyVersion* activeVersion(const KeyHeader& header, int64_t nowUnix) {
  for (const KeyVersion& version : header.versions) {
    if (stateOf(version, nowUnix) == VersionState::Active) return &version;
  }
  return nullptr;
}

Result<SealedKey, Problem> parseKeyText(std::string_view text) {
  Lines lines(text);
  const auto first = lines.next();
  if (!first)
    return refuse(text.starts_with(FIRST_LINE_WORD) ? damaged("it is cut off")
                                                    : damaged("it is empty or has no lines"));
  if (auto good = parseFirstLine(*first); !good) return refuse(good.error());

  SealedKey sealed;
  KeyHeader& header = sealed.header;
  const auto wrong = [&](std::string_view line) {
    return refuse(lines.cutHere() ? damaged("it is cut off")
                                  : damaged("the line `" + std::string(line) + ":` is wrong or missing"));
  };
  const auto name = lines.value("name");
  if (!name || !isKeyName(*name)) return wrong("name");
  header.name = std::string(*name);
  const auto kind = lines.value("kind");
  if (!kind) return wrong("kind");
  if (*kind != "x25519")
    return refuse(Problem{"a key of a kind that this version doesn't know", "use a newer sallyport"});
  const auto publicKey = lines.value("public");
  if (!publicKey || !decodeExactly(*publicKey, header.versions.emplace_back().publicKey.mutableSpan()))
    return wrong("public");
  header.ledgerId = LedgerId(header.versions[0].publicKey.span());
  const auto created = lines.value("created");
  if (!created || created->size() > 40 || created->find_first_not_of("0123456789-:TZ") != std::string_view::npos)
    return wrong("created");
  header.created = std::string(*created);
  const auto seal = lines.value("seal");
  if (!seal || !parseSeal(*seal, header)) return wrong("seal");
  if (header.seal != SealKind::Plain) {
    const auto nonce = lines.value("nonce");
    if (!nonce || !decodeExactly(*nonce, header.nonce)) return wrong("nonce");
  }
  sealed.authenticated = std::string(text.substr(0, lines.position()));
  const size_t payloadBytes = header.seal == SealKind::Plain ? SECRET_BYTES : SEALED_BYTES;
  const auto payload = lines.value("payload");
  if (!payload || !decodeExactly(*payload, sealed.payload.exposeMutable().first(payloadBytes))) return wrong("payload");
  if (!lines.atEnd()) return refuse(damaged("something follows the payload"));
  return sealed;
}

Result<FileKey, Problem> fileKeyOf(const SealedKey& sealed, const SecretText& secret) {
  if (sealed.header.seal == SealKind::Plain) return FileKey();
  return sealingKey(sealed.header, secret);
}

Result<OpenedKey, Problem> openSealed(const SealedKey& sealed, const SecretText& secret) {
  auto key = fileKeyOf(sealed, secret);
  if (!key) return refuse(key.error());
  return openKey(sealed, *key);
}

Result<OpenedKey, Problem> openKey(const SealedKey& sealed, const FileKey& key) {
  const KeyHeader& header = sealed.header;
  LongTermSecret opened;
  if (header.seal == SealKind::Plain) {
    opened = LongTermSecret(sealed.payload.expose().first(SECRET_BYTES));
  } else {
    const ByteSpan authenticated = asBytes(sealed.authenticated);
    if (crypto_aead_xchacha20poly1305_ietf_decrypt(opened.exposeData(), nullptr, nullptr, sealed.payload.exposeData(),
                                                   SEALED_BYTES, uchars(authenticated), authenticated.size(),
                                                   uchars(ByteSpan(header.nonce)), key.exposeData()) != 0) {
      const bool passphrase = header.seal == SealKind::Passphrase;
      return refuse(
          Problem{passphrase ? "the passphrase is wrong, or the file was changed"
                             : "the credential `" + header.credential + "` is another one, or the file was changed",
                  passphrase ? "try again; if the passphrase is right, restore the file from a backup"
                             : "use the credential that the key was sealed with, or restore the file from a backup"});
    }
  }
  // A plain file has no seal that proves its header; and a public key that doesn't belong to the secret would make us
  // answer as somebody else.
  if (publicKeyOf(opened) != header.versions[0].publicKey)
    return refuse(damaged("the public key doesn't belong to the secret"));
  OpenedKey result{header, {}};
  result.versions.push_back({header.versions[0], std::move(opened)});
  return result;
}

Result<SecretText, Problem> sealedText(std::string_view name, const LongTermSecret& secret, const Sealing& sealing,
                                       std::string_view created) {
  CHECK(isKeyName(name));
  KeyHeader header;
  header.name = std::string(name);
  header.versions.emplace_back().publicKey = publicKeyOf(secret);
  header.created = created.empty() ? nowUtc() : std::string(created);
  header.seal = sealing.kind;
  header.cost = sealing.cost;
  header.credential = sealing.credential;

  SecretBytes<struct PayloadTag, SEALED_BYTES> payload;
  size_t payloadBytes = SECRET_BYTES;
  std::string authenticated;
  if (sealing.kind == SealKind::Plain) {
    authenticated = headerText(header);
    std::memcpy(payload.exposeData(), secret.exposeData(), SECRET_BYTES);
  } else {
    CHECK(sealing.secret != nullptr);
    if (sealing.secret->empty())
      return refuse(Problem{"an empty passphrase protects nothing", "give one, or make a plain key"});
    if (sealing.kind == SealKind::SystemdCredential && !isKeyName(sealing.credential)) {
      return refuse(Problem{"not a name for a credential: `" + sealing.credential + "`",
                            "use letters, digits, `.`, `_` and `-`"});
    }
    fillRandom(header.salt);
    fillRandom(header.nonce);
    authenticated = headerText(header);
    auto key = sealingKey(header, *sealing.secret);
    if (!key) return refuse(key.error());
    crypto_aead_xchacha20poly1305_ietf_encrypt(payload.exposeData(), nullptr, secret.exposeData(), SECRET_BYTES,
                                               uchars(asBytes(authenticated)), authenticated.size(), nullptr,
                                               uchars(ByteSpan(header.nonce)), key->exposeData());
    payloadBytes = SEALED_BYTES;
  }
  SecretText text;
  CHECK(text.append(authenticated) && text.append("payload: ") &&
        appendBase64(text, payload.expose().first(payloadBytes)) && text.append("\n"));
  return text;
}

Result<LongTermSecret, Problem> parseSecret(std::string_view text) {
  while (!text.empty() && isSpace(text.front())) text.remove_prefix(1);
  while (!text.empty() && isSpace(text.back())) text.remove_suffix(1);
  LongTermSecret secret;
  size_t size = 0;
  const char* end = nullptr;
  const bool hex =
      text.size() == 2 * SECRET_BYTES &&
      sodium_hex2bin(secret.exposeData(), SECRET_BYTES, text.data(), text.size(), nullptr, &size, &end) == 0 &&
      size == SECRET_BYTES && end == text.data() + text.size();
  if (!hex && !decodeExactly(text, secret.exposeMutable())) {
    return refuse(
        Problem{"not a secret key: 32 bytes in base64 (44 characters) or hex (64 characters) are wanted", {}});
  }
  if (sodium_is_zero(secret.exposeData(), SECRET_BYTES)) return refuse(Problem{"the secret key is all zeros", {}});
  return secret;
}

}  // namespace sallyport::vaultd
