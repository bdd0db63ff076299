// keys.cc - see keys.h. Part of: hsmd (worker and probe).
#include "hsmd/keys.h"

#include <sodium.h>

#include <algorithm>

namespace sallyport::hsmd {

using hsm::KeyKind;
using hsm::PointForm;
using hsm::Spelling;
using hsm::WrapAlgorithm;

namespace {

constexpr size_t MAX_PARAMETER_BYTES = 64;
constexpr size_t MAX_MODULUS_BYTES = hsm::MAX_BLOB_BYTES;
constexpr CK_ULONG LEAST_RSA_BITS = 2048;

// The public half of a key: the same id and type.
CK_OBJECT_HANDLE openHalf(const Session& session, const hsm::KeyId& id, CK_KEY_TYPE keyType) {
  if (id.length == 0) return 0;
  Template filter;
  filter.number(CKA_CLASS, CKO_PUBLIC_KEY).number(CKA_KEY_TYPE, keyType).bytes(CKA_ID, id.span());
  const auto found = findObjects(session.module, session.handle, filter, 2);
  return found && found->size() == 1 ? found->front() : 0;
}

void readPublicPoint(const Session& session, TokenKey& key) {
  std::array<std::byte, 64> buffer;
  for (const CK_OBJECT_HANDLE object : {key.open, key.use}) {
    if (object == 0) continue;
    const auto value = attribute(session.module, session.handle, object, CKA_EC_POINT, buffer);
    const auto point = value ? pointOf(*value) : std::nullopt;
    if (!point) continue;
    key.info.publicKey = *point;
    key.hasPublicKey = true;
    return;
  }
}

bool may(const Session& session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE use) {
  return flagAttribute(session.module, session.handle, object, use).value_or(false);
}

void readCurve(const Session& session, CK_KEY_TYPE keyType, TokenKey& key) {
  std::array<std::byte, MAX_PARAMETER_BYTES> buffer;
  std::optional<ByteSpan> parameters;
  for (const CK_OBJECT_HANDLE object : {key.use, key.open}) {
    if (!parameters && object != 0)
      parameters = attribute(session.module, session.handle, object, CKA_EC_PARAMS, buffer);
  }
  if (!parameters) return;
  key.info.spelling = spellingOf(keyType, *parameters);
  if (key.info.spelling != Spelling::None) {
    key.info.kind = KeyKind::X25519;
  } else if (isEd25519(keyType, *parameters)) {
    key.info.kind = KeyKind::Ed25519;
  } else {
    return;
  }
  readPublicPoint(session, key);
}

void readRsa(const Session& session, TokenKey& key) {
  std::array<std::byte, MAX_MODULUS_BYTES> buffer;
  std::optional<ByteSpan> modulus;
  for (const CK_OBJECT_HANDLE object : {key.open, key.use}) {
    if (!modulus && object != 0) modulus = attribute(session.module, session.handle, object, CKA_MODULUS, buffer);
  }
  if (!modulus || modulus->empty()) return;
  // Some have a zero in front of it.
  while (!modulus->empty() && modulus->front() == std::byte{0}) modulus = modulus->subspan(1);
  const size_t bits = modulus->size() * 8;
  if (bits < LEAST_RSA_BITS || bits > MAX_MODULUS_BYTES * 8) return;
  key.info.kind = KeyKind::Rsa;
  key.info.bits = static_cast<uint16_t>(bits);
  const bool usable = key.open != 0 && may(session, key.use, CKA_DECRYPT) &&
                      hasMechanism(session.module, session.slot, CKM_RSA_PKCS_OAEP, CKF_DECRYPT);
  key.info.oaepSha256 = key.info.oaepSha1 = usable;
}

void readAes(const Session& session, TokenKey& key) {
  const auto length = numberAttribute(session.module, session.handle, key.use, CKA_VALUE_LEN);
  if (length != CK_ULONG{32}) return;
  key.info.kind = KeyKind::Aes;
  key.info.bits = 256;
  key.info.gcm = may(session, key.use, CKA_DECRYPT) && may(session, key.use, CKA_ENCRYPT) &&
                 hasMechanism(session.module, session.slot, CKM_AES_GCM, CKF_DECRYPT);
}

// Twelve hex digits for the board: ids and labels may be long, and hold anything.
std::string shortName(const TokenKey& key) {
  std::array<std::byte, 6> hash;
  crypto_generichash_state state;
  crypto_generichash_init(&state, nullptr, 0, crypto_generichash_BYTES_MIN);
  const auto add = [&](ByteSpan bytes) { crypto_generichash_update(&state, uchars(bytes), bytes.size()); };
  const std::array lengths{static_cast<std::byte>(key.info.id.length), static_cast<std::byte>(key.info.kind),
                           static_cast<std::byte>(key.info.spelling)};
  add(lengths);
  add(key.info.id.span());
  add(key.info.label.span());
  std::array<unsigned char, crypto_generichash_BYTES_MIN> whole;
  crypto_generichash_final(&state, whole.data(), whole.size());
  std::ranges::copy(std::as_bytes(std::span(whole)).first(hash.size()), hash.begin());
  return toHex(hash);
}

Status statusOfTrial(const Board::Seen& seen) {
  switch (seen.trial) {
    case hsm::Trial::Works: return Status::Ok;
    case hsm::Trial::Wrong: return Status::BadResult;
    case hsm::Trial::Refused:
    case hsm::Trial::Untried: return seen.ckr == CKR_OK ? Status::Unsupported : statusOf(seen.ckr);
    case hsm::Trial::Crashed:
    case hsm::Trial::TimedOut: return Status::ModuleFailed;
  }
  return Status::ModuleFailed;
}

// The token's own public key: its secret times the base point.
Outcome<void> askPublicKey(const Session& session, TokenKey& key, PointForm form) {
  hsm::Block32 base{std::byte{9}};
  if (auto got = derive(session, key.use, form, base, key.info.publicKey); !got) return got;
  key.hasPublicKey = true;
  return {};
}

CK_OBJECT_HANDLE copyInSession(const Session& session, CK_OBJECT_HANDLE object) {
  Template changes;
  changes.flag(CKA_TOKEN, false);
  CK_OBJECT_HANDLE copy = 0;
  const CK_RV rv = session.module->C_CopyObject(session.handle, object, changes.data(), changes.size(), &copy);
  return rv == CKR_OK ? copy : object;
}

}  // namespace

std::optional<TokenKey> readKey(const Session& session, CK_OBJECT_HANDLE object, CK_OBJECT_HANDLE open) {
  const auto keyType = numberAttribute(session.module, session.handle, object, CKA_KEY_TYPE);
  if (!keyType) return std::nullopt;
  TokenKey key;
  key.use = object;
  std::array<std::byte, 256> buffer;
  if (const auto id = attribute(session.module, session.handle, object, CKA_ID, buffer)) {
    const auto bounded = hsm::KeyId::of(*id);
    if (!bounded) return std::nullopt;
    key.info.id = *bounded;
  }
  if (const auto label = attribute(session.module, session.handle, object, CKA_LABEL, buffer))
    key.info.label = hsm::KeyLabel::cut(*label);
  key.info.sensitive = may(session, object, CKA_SENSITIVE);
  key.info.extractable = may(session, object, CKA_EXTRACTABLE);
  // Each use would want a PIN or a touch of its own.
  if (may(session, object, CKA_ALWAYS_AUTHENTICATE)) return key;
  key.open = open != 0 ? open : openHalf(session, key.info.id, *keyType);
  switch (*keyType) {
    case CKK_EC:
    case CKK_EC_EDWARDS:
    case KEY_EC_MONTGOMERY: readCurve(session, *keyType, key); break;
    case CKK_RSA: readRsa(session, key); break;
    case CKK_AES: readAes(session, key); break;
    default: break;
  }
  return key;
}

Outcome<std::vector<TokenKey>> findKeys(const Session& session, bool copies) {
  std::vector<TokenKey> keys;
  for (const CK_OBJECT_CLASS kind : {CKO_PRIVATE_KEY, CKO_SECRET_KEY}) {
    Template filter;
    filter.number(CKA_CLASS, kind).flag(CKA_TOKEN, true);
    const auto objects = findObjects(session.module, session.handle, filter, hsm::MAX_KEYS);
    if (!objects) return refuse(objects.error());
    for (const CK_OBJECT_HANDLE object : *objects) {
      auto key = readKey(session, object);
      if (!key || keys.size() >= hsm::MAX_KEYS) continue;
      if (copies && key->info.kind != KeyKind::Other) key->use = copyInSession(session, key->use);
      keys.push_back(std::move(*key));
    }
  }
  // Modules list objects in any order; ours doesn't change from one start to the next.
  std::ranges::stable_sort(keys, [](const TokenKey& left, const TokenKey& right) {
    return std::ranges::lexicographical_compare(left.info.id.span(), right.info.id.span());
  });
  return keys;
}

std::vector<KeyTrial> trialsOf(const TokenKey& key) {
  const std::string name = "key " + shortName(key) + " ";
  switch (key.info.kind) {
    case KeyKind::X25519:
      return {{.name = name + "raw", .kind = KeyKind::X25519, .form = PointForm::Raw},
              {.name = name + "octets", .kind = KeyKind::X25519, .form = PointForm::Octets}};
    case KeyKind::Ed25519: return {{.name = name + "eddsa", .kind = KeyKind::Ed25519}};
    case KeyKind::Aes:
      if (!key.info.gcm) return {};
      return {{.name = name + "gcm", .kind = KeyKind::Aes, .algorithm = WrapAlgorithm::Gcm}};
    case KeyKind::Rsa:
      if (!key.info.oaepSha256) return {};
      return {{.name = name + "oaep-sha256", .kind = KeyKind::Rsa, .algorithm = WrapAlgorithm::OaepSha256},
              {.name = name + "oaep-sha1", .kind = KeyKind::Rsa, .algorithm = WrapAlgorithm::OaepSha1}};
    case KeyKind::Other: return {};
  }
  return {};
}

Outcome<void> prove(const Session& session, TokenKey& key, const KeyTrial& trial) {
  switch (key.info.kind) {
    case KeyKind::X25519:
      if (!key.hasPublicKey) {
        if (auto asked = askPublicKey(session, key, trial.form); !asked) return asked;
      }
      return proveDerive(session, key.use, trial.form, key.info.publicKey);
    case KeyKind::Ed25519:
      if (!key.hasPublicKey) return failed(Status::Unsupported);
      return proveSign(session, key.use, key.info.publicKey);
    case KeyKind::Aes:
    case KeyKind::Rsa: return proveWrap(session, key.wrapHandle(), key.use, trial.algorithm, key.modulusBytes());
    case KeyKind::Other: break;
  }
  return failed(Status::Unsupported);
}

void settle(const Session& session, TokenKey& key, const Board& board) {
  key.info.proof = Status::Unsupported;
  key.info.gcm = key.info.gcm && key.info.kind == KeyKind::Aes;
  // A way that isn't offered says less than one that gave a wrong result or an end.
  const auto note = [&key](Status status) {
    if (key.info.proof == Status::Unsupported) key.info.proof = status;
  };
  bool sha256 = false;
  bool sha1 = false;
  bool gcm = false;
  for (const KeyTrial& trial : trialsOf(key)) {
    const auto seen = board.find(trial.name);
    if (!seen) continue;
    if (seen->trial != hsm::Trial::Works) {
      note(statusOfTrial(*seen));
      continue;
    }
    const auto proved = prove(session, key, trial);
    if (!proved) {
      note(proved.error().status);
      continue;
    }
    key.info.proof = Status::Ok;
    sha256 |= trial.kind == KeyKind::Rsa && trial.algorithm == WrapAlgorithm::OaepSha256;
    sha1 |= trial.kind == KeyKind::Rsa && trial.algorithm == WrapAlgorithm::OaepSha1;
    gcm |= trial.kind == KeyKind::Aes;
    if (key.info.kind == KeyKind::X25519) {
      key.info.form = trial.form;
      break;
    }
  }
  key.info.oaepSha256 = sha256;
  key.info.oaepSha1 = sha1;
  key.info.gcm = gcm;
}

}  // namespace sallyport::hsmd
