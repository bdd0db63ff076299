// operations.cc - see operations.h: derive, sign, wrap and unwrap, and the known answers for them. Part of: hsmd
// (worker and probe). Secrets of ours live in SecretBytes or in the caller's slot.
#include <sodium.h>

#include <algorithm>

#include "hsmd/last_call.h"
#include "hsmd/operations.h"

namespace sallyport::hsmd {

using hsm::WrapAlgorithm;

namespace {

struct ScalarTag;
struct SharedTag;
struct WrapTag;
using Scalar = SecretBytes<ScalarTag, 32>;
using Shared = SecretBytes<SharedTag, 32>;
using Wrapped = SecretBytes<WrapTag, 32>;

constexpr size_t GCM_IV_BYTES = 12;
constexpr size_t GCM_TAG_BYTES = 16;
constexpr size_t GCM_BLOB_BYTES = GCM_IV_BYTES + 32 + GCM_TAG_BYTES;

// The mechanism of a blob, with the parameters that it points to.
struct WrapMechanism {
  WrapMechanism(WrapAlgorithm algorithm, std::span<const std::byte, GCM_IV_BYTES> iv, const hsm::Block32& bound) {
    std::ranges::copy(iv, iv_.begin());
    std::ranges::copy(bound, bound_.begin());
    if (algorithm == WrapAlgorithm::Gcm) {
      gcm_ = {.iv_ptr = uchars(MutableByteSpan(iv_)),
              .iv_len = iv_.size(),
              .iv_bits = 8 * iv_.size(),
              .aad_ptr = uchars(MutableByteSpan(bound_)),
              .aad_len = bound_.size(),
              .tag_bits = 8 * GCM_TAG_BYTES};
      mechanism = {.mechanism = CKM_AES_GCM, .pParameter = &gcm_, .ulParameterLen = sizeof gcm_};
    } else {
      const bool sha256 = algorithm == WrapAlgorithm::OaepSha256;
      oaep_.hash_alg = sha256 ? CKM_SHA256 : CKM_SHA_1;
      oaep_.mgf = sha256 ? CKG_MGF1_SHA256 : CKG_MGF1_SHA1;
      oaep_.source = CKZ_DATA_SPECIFIED;
      oaep_.source_data = nullptr;
      oaep_.source_data_len = 0;
      mechanism = {.mechanism = CKM_RSA_PKCS_OAEP, .pParameter = &oaep_, .ulParameterLen = sizeof oaep_};
    }
  }
  CK_MECHANISM mechanism{};

 private:
  std::array<std::byte, GCM_IV_BYTES> iv_;
  hsm::Block32 bound_;
  CK_GCM_PARAMS gcm_{};
  CK_RSA_PKCS_OAEP_PARAMS oaep_{};
};

// The result of a derive is an object first. It goes with this.
struct DerivedObject {
  const Session& session;
  CK_OBJECT_HANDLE handle;
  bool destroyed = false;
  CK_RV destroy() {
    destroyed = true;
    return session.module->C_DestroyObject(session.handle, handle);
  }
  ~DerivedObject() {
    if (!destroyed) destroy();
  }
};

}  // namespace

Outcome<void> derive(const Session& session, CK_OBJECT_HANDLE key, hsm::PointForm form,
                     std::span<const std::byte, 32> peer, std::span<std::byte, 32> secret) {
  std::array<std::byte, 34> buffer;
  const ByteSpan point = pointFor(form, peer, buffer);
  CK_ECDH1_DERIVE_PARAMS parameters{.kdf = CKD_NULL,
                                    .shared_data_len = 0,
                                    .shared_data = nullptr,
                                    .public_data_len = point.size(),
                                    .public_data = const_cast<unsigned char*>(uchars(point))};
  CK_MECHANISM mechanism{.mechanism = CKM_ECDH1_DERIVE, .pParameter = &parameters, .ulParameterLen = sizeof parameters};
  Template wanted;
  wanted.number(CKA_CLASS, CKO_SECRET_KEY)
      .number(CKA_KEY_TYPE, CKK_GENERIC_SECRET)
      .number(CKA_VALUE_LEN, 32)
      .flag(CKA_TOKEN, false)
      .flag(CKA_SENSITIVE, false)
      .flag(CKA_EXTRACTABLE, true);
  CK_OBJECT_HANDLE handle = 0;
  noteCall("C_DeriveKey");
  if (const CK_RV rv =
          session.module->C_DeriveKey(session.handle, &mechanism, key, wanted.data(), wanted.size(), &handle);
      rv != CKR_OK)
    return failed(rv);
  DerivedObject derived{session, handle};
  CK_ATTRIBUTE value{.type = CKA_VALUE, .pValue = secret.data(), .ulValueLen = secret.size()};
  noteCall("C_GetAttributeValue");
  const CK_RV rv = session.module->C_GetAttributeValue(session.handle, handle, &value, 1);
  // A leading zero that was cut off, or anything else that isn't 32 bytes, can't be what was asked for.
  const bool whole = rv == CKR_OK && value.ulValueLen == secret.size();
  if (!whole || sodium_is_zero(uchars(ByteSpan(secret)), secret.size()) == 1) {
    wipe(secret);
    return rv == CKR_OK ? Outcome<void>(failed(Status::BadResult)) : Outcome<void>(failed(rv));
  }
  if (const CK_RV gone = derived.destroy(); gone != CKR_OK) {
    wipe(secret);
    return failed(gone);
  }
  return {};
}

Outcome<void> proveDerive(const Session& session, CK_OBJECT_HANDLE key, hsm::PointForm form,
                          std::span<const std::byte, 32> publicKey) {
  const Scalar scalar = Scalar::random();
  PublicKey ephemeral;
  CHECK(crypto_scalarmult_base(ephemeral.data(), scalar.exposeData()) == 0);
  Shared expected;
  if (crypto_scalarmult(expected.exposeData(), scalar.exposeData(), uchars(ByteSpan(publicKey))) != 0)
    return failed(Status::BadResult);  // a public key of low order
  Shared answer;
  if (auto derived = derive(session, key, form, ephemeral.span(), answer.exposeMutable()); !derived) return derived;
  if (!equalsConstantTime(expected.expose(), answer.expose())) return failed(Status::BadResult);
  return {};
}

Outcome<void> sign(const Session& session, CK_OBJECT_HANDLE key, ByteSpan message, std::span<std::byte, 64> signature) {
  CK_MECHANISM mechanism{.mechanism = CKM_EDDSA, .pParameter = nullptr, .ulParameterLen = 0};
  noteCall("C_SignInit");
  if (const CK_RV rv = session.module->C_SignInit(session.handle, &mechanism, key); rv != CKR_OK) return failed(rv);
  CK_ULONG length = signature.size();
  // SoftHSM takes a null pointer for a mistake, also where there is nothing to point at.
  static constexpr std::byte NOTHING{};
  const std::byte* data = message.empty() ? &NOTHING : message.data();
  noteCall("C_Sign");
  const CK_RV rv = session.module->C_Sign(session.handle, const_cast<unsigned char*>(uchars(ByteSpan(data, 1))),
                                          message.size(), uchars(MutableByteSpan(signature)), &length);
  if (rv != CKR_OK) return failed(rv);
  if (length != signature.size()) return failed(Status::BadResult);
  return {};
}

Outcome<void> proveSign(const Session& session, CK_OBJECT_HANDLE key, std::span<const std::byte, 32> publicKey) {
  hsm::Block32 message;
  fillRandom(message);
  hsm::Block64 signature;
  if (auto made = sign(session, key, message, signature); !made) return made;
  const bool right = crypto_sign_verify_detached(uchars(ByteSpan(signature)), uchars(ByteSpan(message)), message.size(),
                                                 uchars(ByteSpan(publicKey))) == 0;
  return right ? Outcome<void>() : Outcome<void>(failed(Status::BadResult));
}

Outcome<hsm::Blob> wrap(const Session& session, CK_OBJECT_HANDLE key, WrapAlgorithm algorithm, size_t modulusBytes,
                        const hsm::Block32& bound, std::span<const std::byte, 32> secret) {
  const bool gcm = algorithm == WrapAlgorithm::Gcm;
  std::array<std::byte, GCM_IV_BYTES> iv{};
  if (gcm) fillRandom(iv);
  WrapMechanism chosen(algorithm, iv, bound);
  noteCall("C_EncryptInit");
  if (const CK_RV rv = session.module->C_EncryptInit(session.handle, &chosen.mechanism, key); rv != CKR_OK)
    return failed(rv);
  const size_t offset = gcm ? GCM_IV_BYTES : 0;
  const size_t expected = gcm ? 32 + GCM_TAG_BYTES : modulusBytes;
  if (expected == 0 || offset + expected > hsm::MAX_BLOB_BYTES) return failed(Status::Unsupported);
  hsm::Blob blob;
  std::ranges::copy(iv, blob.bytes.begin());
  // Not a byte more room than the result has: there are modules that return the room as the length.
  const auto room = MutableByteSpan(blob.bytes).subspan(offset, expected);
  CK_ULONG length = room.size();
  noteCall("C_Encrypt");
  const CK_RV rv = session.module->C_Encrypt(session.handle, const_cast<unsigned char*>(uchars(ByteSpan(secret))),
                                             secret.size(), uchars(room), &length);
  if (rv != CKR_OK) return failed(rv);
  // A token that ignores the plain text's secrecy would show here as well as anywhere.
  if (length != expected || std::search(room.begin(), room.end(), secret.begin(), secret.end()) != room.end())
    return failed(Status::BadResult);
  blob.length = static_cast<uint16_t>(offset + expected);
  return blob;
}

Outcome<void> unwrap(const Session& session, CK_OBJECT_HANDLE key, WrapAlgorithm algorithm, const hsm::Block32& bound,
                     ByteSpan blob, std::span<std::byte, 32> secret) {
  std::array<std::byte, GCM_IV_BYTES> iv{};
  if (algorithm == WrapAlgorithm::Gcm) {
    if (blob.size() != GCM_BLOB_BYTES) return failed(Status::BlobRejected);
    std::ranges::copy(blob.first(GCM_IV_BYTES), iv.begin());
    blob = blob.subspan(GCM_IV_BYTES);
  } else if (blob.size() < 128) {
    return failed(Status::BlobRejected);
  }
  WrapMechanism chosen(algorithm, iv, bound);
  noteCall("C_DecryptInit");
  if (const CK_RV rv = session.module->C_DecryptInit(session.handle, &chosen.mechanism, key); rv != CKR_OK)
    return failed(rv);
  // Some modules want room for the padding as well, and write there before they know better.
  struct PlainTag;
  SecretBytes<PlainTag, hsm::MAX_BLOB_BYTES> plain;
  CK_ULONG length = hsm::MAX_BLOB_BYTES;
  noteCall("C_Decrypt");
  const CK_RV rv = session.module->C_Decrypt(session.handle, const_cast<unsigned char*>(uchars(blob)), blob.size(),
                                             plain.exposeData(), &length);
  if (rv != CKR_OK) return failed(rv);
  if (length != secret.size()) return failed(Status::BlobRejected);
  std::ranges::copy(plain.expose().first<32>(), secret.begin());
  return {};
}

Outcome<void> proveWrap(const Session& session, CK_OBJECT_HANDLE wrapKey, CK_OBJECT_HANDLE unwrapKey,
                        WrapAlgorithm algorithm, size_t modulusBytes) {
  const Wrapped secret = Wrapped::random();
  hsm::Block32 bound;
  fillRandom(bound);
  const auto blob = wrap(session, wrapKey, algorithm, modulusBytes, bound, secret.expose());
  if (!blob) return refuse(blob.error());
  Wrapped again;
  if (auto got = unwrap(session, unwrapKey, algorithm, bound, blob->span(), again.exposeMutable()); !got) return got;
  if (!equalsConstantTime(secret.expose(), again.expose())) return failed(Status::BadResult);
  return {};
}

}  // namespace sallyport::hsmd
