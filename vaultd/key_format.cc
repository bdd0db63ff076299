#include "vaultd/key_format.h"

#include <sodium.h>

#include <algorithm>
#include <limits>

#include "vaultd/key_text.h"

namespace sallyport::vaultd {

namespace {

constexpr std::string_view KEY_WORDS = "sallyport key ";
constexpr std::string_view KEY_LINE = "sallyport key 2";
constexpr std::string_view KEY_LINE_1 = "sallyport key 1";
constexpr std::string_view BACKUP_WORDS = "sallyport backup ";
constexpr std::string_view BACKUP_LINE = "sallyport backup 1";
constexpr size_t PERSONAL_BYTES = crypto_generichash_blake2b_PERSONALBYTES;
constexpr unsigned char SEAL_PERSONAL[PERSONAL_BYTES + 1] = "sallyport-seal-2";
constexpr unsigned char MAC_PERSONAL[PERSONAL_BYTES + 1] = "sallyport-mac--2";
constexpr size_t TAG_BYTES = crypto_aead_xchacha20poly1305_ietf_ABYTES;
constexpr size_t NUMBER_BYTES = 4;
constexpr size_t itemBytes(KeyKind kind) { return NUMBER_BYTES + secretBytes(kind); }
constexpr unsigned char BLOCK_PERSONAL[PERSONAL_BYTES + 1] = "sallyport-block1";
static_assert(crypto_aead_xchacha20poly1305_ietf_NPUBBYTES == sizeof(SealedKey::nonce));

// The content of a payload, opened: wiped with everything else.
using Items = SecretBytes<struct ItemsTag, MAX_VERSIONS * itemBytes(KeyKind::PeerBlock)>;
using SubKey = SecretBytes<struct SubKeyTag, 32>;

SubKey subKey(const FileKey& key, const unsigned char* personal) {
  SubKey result;
  CHECK(crypto_generichash_blake2b_salt_personal(result.exposeData(), SubKey::SIZE, nullptr, 0, key.exposeData(),
                                                 FileKey::SIZE, nullptr, personal) == 0);
  return result;
}

std::array<std::byte, 32> hashOf(std::string_view text) {
  std::array<std::byte, 32> hash;
  CHECK(crypto_generichash_blake2b(uchars(MutableByteSpan(hash)), hash.size(), uchars(asBytes(text)), text.size(),
                                   nullptr, 0) == 0);
  return hash;
}

std::array<std::byte, 32> macOf(const std::array<std::byte, 32>& textHash, const FileKey& key) {
  const SubKey macKey = subKey(key, MAC_PERSONAL);
  std::array<std::byte, 32> mac;
  CHECK(crypto_generichash_blake2b(uchars(MutableByteSpan(mac)), mac.size(), uchars(ByteSpan(textHash)),
                                   textHash.size(), macKey.exposeData(), SubKey::SIZE) == 0);
  return mac;
}

// --- the lines ---

// What a version of a block, or of a key in a token, has beside the others.
std::string specialText(const KeyVersion& version, KeyKind kind) {
  if (kind == KeyKind::PeerBlock) return version.unused ? " unused=yes" : " unused=no";
  if (version.tokenId.empty()) return {};
  return " id=" + toHex(version.tokenId) + " spelling=" + version.spelling;
}

std::string versionText(const KeyVersion& version, KeyKind kind) {
  return std::to_string(version.number) + " public=" + toBase64(version.publicKey.span()) +
         " active=" + std::to_string(version.activeFrom) + " open-only=" + std::to_string(version.openOnlyFrom) +
         " retired=" + std::to_string(version.retiredFrom) + " deleted=" + std::to_string(version.deletedFrom) +
         " destroy=" + std::to_string(version.destroyAt) + specialText(version, kind);
}

bool parseTime(std::string_view& rest, std::string_view field, int64_t& time) {
  const auto value = parseNumber(takeField(rest, field).value_or(""));
  if (!value || *value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return false;
  time = static_cast<int64_t>(*value);
  return true;
}

// Which object of the token the version is.
bool parseTokenObject(std::string_view& rest, KeyVersion& version) {
  const auto id = takeField(rest, "id");
  const auto spelling = takeField(rest, "spelling");
  if (!id || id->size() > 2 * MAX_TOKEN_ID_BYTES || !spelling || !isSpelling(*spelling)) return false;
  auto bytes = fromHex(*id);
  if (!bytes || bytes->empty()) return false;
  version.tokenId = std::move(*bytes);
  version.spelling = std::string(*spelling);
  return true;
}

bool parseVersion(std::string_view text, KeyKind kind, bool inToken, KeyVersion& version) {
  std::string_view rest = text;
  const auto number = parseNumber(takeWord(rest));
  const auto publicKey = takeField(rest, "public");
  if (!number || *number == 0 || *number > std::numeric_limits<uint32_t>::max()) return false;
  version.number = static_cast<uint32_t>(*number);
  return publicKey && decodeExactly(*publicKey, version.publicKey.mutableSpan()) &&
         parseTime(rest, "active", version.activeFrom) && parseTime(rest, "open-only", version.openOnlyFrom) &&
         parseTime(rest, "retired", version.retiredFrom) && parseTime(rest, "deleted", version.deletedFrom) &&
         parseTime(rest, "destroy", version.destroyAt) && (!inToken || parseTokenObject(rest, version)) &&
         (version.unused = rest == "unused=yes", true) && versionText(version, kind) == text;
}

std::string headText(const KeyHeader& header, KeyDocument document) {
  const auto yesNo = [](bool yes) { return std::string(yes ? "yes\n" : "no\n"); };
  const bool backup = document == KeyDocument::Backup;
  std::string text = std::string(backup ? BACKUP_LINE : KEY_LINE) + "\nname: " + header.name +
                     "\nkind: " + std::string(describe(header.kind)) + "\n";
  if (header.party) text += "party: " + std::string(describe(*header.party)) + "\n";
  if (!header.token.empty()) text += "token: " + header.token + "\n";
  text += "created: " + header.created + "\n";
  if (!backup) text += "ledger: " + toBase64(header.ledgerId.span()) + "\n";
  text += "export: " + yesNo(header.exportable) + "backup: " + yesNo(header.backupAllowed);
  for (const KeyVersion& version : header.versions) text += "version: " + versionText(version, header.kind) + "\n";
  return text;
}

bool parseYesNo(const std::optional<std::string_view>& word, bool& yes) {
  yes = word == "yes";
  return yes || word == "no";
}

// A slot's line after `slot: `.
bool parseSlot(std::string_view text, SealedKey& sealed) {
  Slot slot;
  const std::string_view whole = text;
  const auto number = parseNumber(takeWord(text));
  if (!number || *number == 0 || *number > std::numeric_limits<uint32_t>::max()) return false;
  slot.number = static_cast<uint32_t>(*number);
  const size_t last = text.rfind(' ');
  if (last == std::string_view::npos || !parseSlotText(text.substr(0, last), slot)) return false;
  const bool plain = slot.kind == SealKind::Plain;
  std::string_view value = text.substr(last + 1);
  const auto wrapped = takeField(value, plain ? "key" : "wrapped");
  if (!wrapped) return false;
  const MutableByteSpan into = plain ? MutableByteSpan(sealed.plainKey.exposeMutable()) : MutableByteSpan(slot.wrapped);
  if (!decodeExactly(*wrapped, into)) return false;
  // One spelling: no number with a zero in front.
  if (!whole.starts_with(std::to_string(slot.number) + " " + slotText(slot) + " ")) return false;
  auto& slots = sealed.header.slots;
  if (!slots.empty() && (plain || slots[0].kind == SealKind::Plain || slot.number <= slots.back().number)) return false;
  slots.push_back(std::move(slot));
  return slots.size() <= MAX_SLOTS;
}

void appendTail(SecretText& text, const std::vector<Slot>& slots, const FileKey& key) {
  for (const Slot& slot : slots) {
    CHECK(text.append("slot: " + std::to_string(slot.number) + " " + slotText(slot)));
    if (slot.kind == SealKind::Plain)
      CHECK(text.append(" key=") && appendBase64(text, key.expose()));
    else
      CHECK(text.append(" wrapped=") && appendBase64(text, slot.wrapped));
    CHECK(text.append("\n"));
  }
  const auto mac = macOf(hashOf(text.expose()), key);
  CHECK(text.append("mac: ") && appendBase64(text, mac) && text.append("\n"));
}

Result<void, Problem> parseFirstLine(std::string_view line, KeyDocument document) {
  const bool backup = document == KeyDocument::Backup;
  if (line == (backup ? BACKUP_LINE : KEY_LINE)) return {};
  if (line.starts_with(BACKUP_WORDS) && !backup)
    return refuse(Problem{"a backup, not a key file", "bring it back with `sallyport key restore`"});
  if (line.starts_with(backup ? BACKUP_WORDS : KEY_WORDS)) {
    return refuse(
        Problem{backup ? "a backup of another version" : "a key file of another version (this program reads 1 and 2)",
                "use the version of sallyport that wrote it, or a newer one"});
  }
  if (backup) return refuse(Problem{"not a backup of a sallyport key", "`sallyport key backup NAME` makes one"});
  return refuse(Problem{"not a sallyport key file", "import a raw key with `sallyport key import NAME`"});
}

}  // namespace

Problem damagedKeyFile(std::string_view what) {
  return {"damaged key file: " + std::string(what), "restore it from a backup; nothing was changed"};
}

bool isKeyName(std::string_view name) {
  // Not std::isalnum: what is a letter must not depend on a locale.
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); };
  if (name.empty() || name.size() > 64 || !plain(name.front())) return false;
  return std::ranges::all_of(name, [&](char c) { return plain(c) || c == '_' || c == '.' || c == '-'; });
}

PublicKey publicKeyOf(const LongTermSecret& secret, KeyKind kind) {
  PublicKey result;
  if (kind == KeyKind::X25519) {
    CHECK(crypto_scalarmult_base(result.data(), secret.exposeData()) == 0);
  } else if (kind == KeyKind::PeerBlock) {
    CHECK(secret.size() == secretBytes(kind));
    CHECK(crypto_generichash_blake2b_salt_personal(result.data(), PublicKey::SIZE, secret.exposeData(), secret.size(),
                                                   nullptr, 0, nullptr, BLOCK_PERSONAL) == 0);
  } else {
    SecretBytes<struct SignKeyTag, crypto_sign_ed25519_SECRETKEYBYTES> expanded;
    CHECK(crypto_sign_ed25519_seed_keypair(result.data(), expanded.exposeData(), secret.exposeData()) == 0);
  }
  return result;
}

const KeyVersion* activeVersion(const KeyHeader& header, int64_t nowUnix) {
  for (const KeyVersion& version : header.versions) {
    if (stateOf(version, nowUnix) == VersionState::Active) return &version;
  }
  return nullptr;
}

std::vector<const KeyVersion*> openingVersions(const KeyHeader& header, int64_t nowUnix) {
  std::vector<const KeyVersion*> result;
  for (auto version = header.versions.rbegin(); version != header.versions.rend(); ++version) {
    const VersionState state = stateOf(*version, nowUnix);
    if (state == VersionState::Active || state == VersionState::OpenOnly) result.push_back(&*version);
  }
  return result;
}

std::string describeSlots(const KeyHeader& header) {
  std::string text;
  if (!header.token.empty()) text = "in token " + header.token;
  for (const Slot& slot : header.slots) {
    text += (text.empty() ? "" : ", ") + std::string(describe(slot.kind));
    if (slot.kind == SealKind::Token) text += " " + slot.token;
    if (slot.kind == SealKind::Shares) text += " " + std::to_string(slot.needed) + " of " + std::to_string(slot.total);
  }
  return text;
}

bool hasTokenSlot(const KeyHeader& header) {
  return std::ranges::find(header.slots, SealKind::Token, &Slot::kind) != header.slots.end();
}

Result<SealedKey, Problem> parseKeyText(std::string_view text, KeyDocument document) {
  Lines lines(text);
  const auto first = lines.next();
  if (!first) {
    return refuse(text.starts_with(KEY_WORDS) ? damagedKeyFile("it is cut off")
                                              : damagedKeyFile("it is empty or has no lines"));
  }
  const bool backup = document == KeyDocument::Backup;
  if (!backup && *first == KEY_LINE_1) return parseKeyText1(text);
  if (auto good = parseFirstLine(*first, document); !good) return refuse(good.error());

  SealedKey sealed;
  sealed.document = document;
  KeyHeader& header = sealed.header;
  const auto wrong = [&](std::string_view line) {
    return refuse(lines.cutHere() ? damagedKeyFile("it is cut off")
                                  : damagedKeyFile("the line `" + std::string(line) + ":` is wrong or missing"));
  };
  const auto name = lines.value("name");
  if (!name || !isKeyName(*name)) return wrong("name");
  header.name = std::string(*name);
  const auto kindWord = lines.value("kind");
  if (!kindWord) return wrong("kind");
  const auto kind = keyKindOf(*kindWord);
  if (!kind) return refuse(Problem{"a key of a kind that this version doesn't know", "use a newer sallyport"});
  header.kind = *kind;
  if (header.kind == KeyKind::PeerBlock) {
    header.party = partyOf(lines.value("party").value_or(""));
    if (!header.party) return wrong("party");
  } else if (const auto token = lines.value("token")) {
    if (!isKeyName(*token)) return wrong("token");
    header.token = std::string(*token);
  }
  const auto created = lines.value("created");
  if (!created || created->size() > 40 || created->find_first_not_of("0123456789-:TZ") != std::string_view::npos)
    return wrong("created");
  header.created = std::string(*created);
  if (!backup) {
    const auto ledger = lines.value("ledger");
    if (!ledger || !decodeExactly(*ledger, header.ledgerId.mutableSpan())) return wrong("ledger");
  }
  if (!parseYesNo(lines.value("export"), header.exportable)) return wrong("export");
  if (!parseYesNo(lines.value("backup"), header.backupAllowed)) return wrong("backup");
  while (const auto line = lines.value("version")) {
    KeyVersion version;
    const bool rising = parseVersion(*line, header.kind, !header.token.empty(), version) &&
                        (header.versions.empty() || version.number > header.versions.back().number);
    if (!rising || header.versions.size() == MAX_VERSIONS) return wrong("version");
    header.versions.push_back(version);
  }
  if (header.versions.empty()) return wrong("version");
  const auto nonce = lines.value("nonce");
  if (!nonce || !decodeExactly(*nonce, sealed.nonce)) return wrong("nonce");
  sealed.authenticated = std::string(text.substr(0, lines.position()));
  const auto payload = lines.value("payload");
  // 4 letters carry 3 bytes: the length follows from the text, and has to fit whole items.
  const size_t most = header.versions.size() * itemBytes(header.kind) + TAG_BYTES;
  if (!payload || payload->size() > 4 * (most / 3 + 1)) return wrong("payload");
  auto sealedItems = fromBase64(*payload);
  if (!sealedItems || toBase64(*sealedItems) != *payload || sealedItems->size() < TAG_BYTES ||
      sealedItems->size() > most || (sealedItems->size() - TAG_BYTES) % itemBytes(header.kind) != 0)
    return wrong("payload");
  sealed.payload = std::move(*sealedItems);
  while (const auto line = lines.value("slot")) {
    if (!parseSlot(*line, sealed)) return wrong("slot");
  }
  if (header.slots.empty()) return wrong("slot");
  header.seal = header.slots[0].kind;
  sealed.textHash = hashOf(text.substr(0, lines.position()));
  const auto mac = lines.value("mac");
  if (!mac || !decodeExactly(*mac, sealed.mac)) return wrong("mac");
  if (!lines.atEnd()) return refuse(damagedKeyFile("something follows the mac"));
  return sealed;
}

Result<FileKey, Problem> fileKeyOf(const SealedKey& sealed, const SlotSecret& secret) {
  if (sealed.format == 1) return fileKeyOf1(sealed, secret);
  if (sealed.header.seal == SealKind::Plain) return FileKey(sealed.plainKey.expose());
  std::optional<Problem> refused;
  for (const Slot& slot : sealed.header.slots) {
    if (slot.kind != secret.kind || slot.credential != secret.credential) continue;
    if (secret.slot != 0 && slot.number != secret.slot) continue;
    auto key = openSlot(sealed.header.name, slot, secret.text);
    if (key) return key;
    refused = key.error();
  }
  if (refused) return refuse(std::move(*refused));
  return refuse(Problem{"no slot of it is opened by a " + std::string(describe(secret.kind)),
                        "`sallyport key slot list " + sealed.header.name + "` tells what opens it"});
}

Result<OpenedKey, Problem> openKey(const SealedKey& sealed, const FileKey& key) {
  if (sealed.format == 1) return openKey1(sealed, key);
  const auto damaged = [](std::string_view what) { return refuse(damagedKeyFile(what)); };
  if (!reveal(equalsConstantTime(macOf(sealed.textHash, key), sealed.mac))) return damaged("it was changed");
  const SubKey sealKey = subKey(key, SEAL_PERSONAL);
  Items items;
  if (!reveal(crypto_aead_xchacha20poly1305_ietf_decrypt(
                  items.exposeData(), nullptr, nullptr, uchars(ByteSpan(sealed.payload)), sealed.payload.size(),
                  uchars(asBytes(sealed.authenticated)), sealed.authenticated.size(), uchars(ByteSpan(sealed.nonce)),
                  sealKey.exposeData()) == 0)) {
    return damaged("it was changed");
  }
  OpenedKey opened{sealed.header, {}};
  ByteSpan rest = items.expose().first(sealed.payload.size() - TAG_BYTES);
  for (const KeyVersion& version : sealed.header.versions) {
    std::array<std::byte, NUMBER_BYTES> number;
    for (size_t i = 0; i < NUMBER_BYTES; ++i) number[i] = static_cast<std::byte>(version.number >> (24 - 8 * i));
    if (rest.empty() || !reveal(equalsConstantTime(rest.first(NUMBER_BYTES), number))) {
      // Only a version that was to be destroyed may have no secret.
      if (version.destroyAt == 0) return damaged("a version has no secret");
      continue;
    }
    LongTermSecret secret(rest.subspan(NUMBER_BYTES, secretBytes(sealed.header.kind)));
    rest = rest.subspan(itemBytes(sealed.header.kind));
    // A public key that doesn't belong to the secret would make us answer as somebody else. Of a key in a token the
    // vault proves it by a known answer, and uses nothing before.
    if (sealed.header.token.empty() &&
        !reveal(equalsConstantTime(publicKeyOf(secret, sealed.header.kind).span(), version.publicKey.span())))
      return damaged("a public key doesn't belong to its secret");
    opened.versions.push_back({version, std::move(secret)});
  }
  if (!rest.empty()) return damaged("a secret has no version");
  return opened;
}

Result<OpenedKey, Problem> openSealed(const SealedKey& sealed, const SlotSecret& secret) {
  auto key = fileKeyOf(sealed, secret);
  if (!key) return refuse(key.error());
  return openKey(sealed, *key);
}

SecretText keyText(const OpenedKey& opened, const FileKey& key, KeyDocument document) {
  const KeyHeader& header = opened.header;
  CHECK(isKeyName(header.name) && header.versions.size() <= MAX_VERSIONS && header.slots.size() <= MAX_SLOTS);
  CHECK(header.party.has_value() == (header.kind == KeyKind::PeerBlock));
  Items items;
  size_t used = 0;
  for (const OpenedVersion& version : opened.versions) {
    const auto into = items.exposeMutable().subspan(used, itemBytes(header.kind));
    for (size_t i = 0; i < NUMBER_BYTES; ++i) into[i] = static_cast<std::byte>(version.version.number >> (24 - 8 * i));
    std::ranges::copy(version.secret.expose(), into.subspan(NUMBER_BYTES).begin());
    used += into.size();
  }
  std::array<std::byte, 24> nonce;
  fillRandom(nonce);
  const std::string authenticated = headText(header, document) + "nonce: " + toBase64(nonce) + "\n";
  const SubKey sealKey = subKey(key, SEAL_PERSONAL);
  std::vector<std::byte> payload(used + TAG_BYTES);
  crypto_aead_xchacha20poly1305_ietf_encrypt(uchars(MutableByteSpan(payload)), nullptr, items.exposeData(), used,
                                             uchars(asBytes(authenticated)), authenticated.size(), nullptr,
                                             uchars(ByteSpan(nonce)), sealKey.exposeData());
  SecretText text;
  CHECK(text.append(authenticated) && text.append("payload: ") && appendBase64(text, payload) && text.append("\n"));
  appendTail(text, header.slots, key);
  return text;
}

SecretText withSlots(const SealedKey& sealed, const std::vector<Slot>& slots, const FileKey& key) {
  CHECK(sealed.format == 2 && !slots.empty() && slots.size() <= MAX_SLOTS);
  SecretText text;
  CHECK(text.append(sealed.authenticated) && text.append("payload: ") && appendBase64(text, sealed.payload) &&
        text.append("\n"));
  appendTail(text, slots, key);
  return text;
}

Result<FileKey, Problem> renewFileKey(OpenedKey& opened, const Sealing& sealing) {
  FileKey key = FileKey::random();
  auto slot = makeSlot(opened.header.name, 1, sealing, key);
  if (!slot) return refuse(slot.error());
  opened.header.slots = {std::move(*slot)};
  opened.header.seal = sealing.kind;
  return key;
}

Result<NewKey, Problem> newKey(std::string_view name, KeyKind kind, const LongTermSecret& secret,
                               const Sealing& sealing, int64_t nowUnix, std::optional<wire::PeerParty> party) {
  CHECK(isKeyName(name) && secret.size() == secretBytes(kind));
  NewKey made;
  KeyHeader& header = made.opened.header;
  header.name = std::string(name);
  header.kind = kind;
  header.party = party;
  header.created = utcText(nowUnix);
  fillRandom(header.ledgerId.mutableSpan());
  KeyVersion& version = header.versions.emplace_back();
  version.publicKey = publicKeyOf(secret, kind);
  version.activeFrom = nowUnix;
  made.opened.versions.push_back({version, LongTermSecret(secret.expose())});
  auto key = renewFileKey(made.opened, sealing);
  if (!key) return refuse(key.error());
  made.fileKey = std::move(*key);
  return made;
}

bool isSpelling(std::string_view word) {
  return !word.empty() && word.size() <= 32 &&
         word.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string_view::npos;
}

Result<NewKey, Problem> newTokenKey(std::string_view name, KeyKind kind, std::string_view token, const TokenKey& key,
                                    const Sealing& sealing, int64_t nowUnix) {
  CHECK(isKeyName(token) && !key.id.empty() && key.id.size() <= MAX_TOKEN_ID_BYTES && isSpelling(key.spelling));
  auto made = newKey(name, kind, LongTermSecret::random(), sealing, nowUnix);
  if (!made) return refuse(made.error());
  KeyHeader& header = made->opened.header;
  header.token = std::string(token);
  KeyVersion& version = header.versions[0];
  version.publicKey = key.publicKey;
  version.tokenId = key.id;
  version.spelling = key.spelling;
  made->opened.versions[0].version = version;
  return made;
}

Result<LongTermSecret, Problem> parseSecret(std::string_view text, KeyKind kind) {
  text = trimmed(text);
  LongTermSecret secret = LongTermSecret::zeros(kind);
  const size_t bytes = secret.size();
  if (!decodeHexExactly(text, secret.exposeMutable()) && !decodeExactly(text, secret.exposeMutable())) {
    return refuse(Problem{"not a secret of the kind " + std::string(describe(kind)) + ": " + std::to_string(bytes) +
                              " bytes in base64 (" + std::to_string((bytes + 2) / 3 * 4) + " characters) or hex (" +
                              std::to_string(2 * bytes) + " characters) are wanted",
                          {}});
  }
  if (reveal(sodium_is_zero(secret.exposeData(), bytes) == 1))
    return refuse(Problem{"the secret key is all zeros", {}});
  // One pad in both directions: equal halves are what equal roles would be.
  if (kind == KeyKind::PeerBlock &&
      reveal(equalsConstantTime(secret.expose().first(bytes / 2), secret.expose().last(bytes / 2))))
    return refuse(Problem{"both halves of the block are the same", "make one with `sallyport pair`"});
  return secret;
}

Result<LongTermSecret, Problem> parseGivenSecret(std::string_view text, KeyKind kind) {
  SecretText dense;
  for (const char c : text) {
    const bool space = (c == ' ') | (c == '\t') | (c == '\r') | (c == '\n');
    if (reveal(space)) continue;
    if (!dense.append({&c, 1})) break;  // far longer than any secret is
  }
  return parseSecret(dense.expose(), kind);
}

}  // namespace sallyport::vaultd
