// attributes.cc - see attributes.h. Part of: hsmd (worker and probe).
#include "hsmd/attributes.h"

#include "hsmd/last_call.h"

namespace sallyport::hsmd {

void Template::add(CK_ATTRIBUTE_TYPE type, const void* value, size_t length) {
  CHECK(attributes_.size() < MAX_ATTRIBUTES);
  attributes_.push_back({.type = type, .pValue = const_cast<void*>(value), .ulValueLen = length});
}

Template& Template::flag(CK_ATTRIBUTE_TYPE type, bool value) {
  CHECK(attributes_.size() < MAX_ATTRIBUTES);
  CK_BBOOL& kept = flags_[attributes_.size()];
  kept = value ? CK_TRUE : CK_FALSE;
  add(type, &kept, sizeof kept);
  return *this;
}

Template& Template::number(CK_ATTRIBUTE_TYPE type, CK_ULONG value) {
  CHECK(attributes_.size() < MAX_ATTRIBUTES);
  CK_ULONG& kept = numbers_[attributes_.size()];
  kept = value;
  add(type, &kept, sizeof kept);
  return *this;
}

Template& Template::bytes(CK_ATTRIBUTE_TYPE type, ByteSpan value) {
  add(type, value.data(), value.size());
  return *this;
}

std::optional<ByteSpan> attribute(const Module& module, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                                  CK_ATTRIBUTE_TYPE type, MutableByteSpan buffer) {
  CK_ATTRIBUTE wanted{.type = type, .pValue = buffer.data(), .ulValueLen = buffer.size()};
  if (module->C_GetAttributeValue(session, object, &wanted, 1) != CKR_OK) return std::nullopt;
  if (wanted.ulValueLen > buffer.size()) return std::nullopt;  // CK_UNAVAILABLE_INFORMATION is the largest of all
  return ByteSpan(buffer).first(wanted.ulValueLen);
}

std::optional<CK_ULONG> numberAttribute(const Module& module, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                                        CK_ATTRIBUTE_TYPE type) {
  CK_ULONG value = 0;
  const auto got = attribute(module, session, object, type, std::as_writable_bytes(std::span(&value, 1)));
  return got && got->size() == sizeof value ? std::optional(value) : std::nullopt;
}

std::optional<bool> flagAttribute(const Module& module, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                                  CK_ATTRIBUTE_TYPE type) {
  CK_BBOOL value = CK_FALSE;
  const auto got = attribute(module, session, object, type, std::as_writable_bytes(std::span(&value, 1)));
  return got && got->size() == sizeof value ? std::optional(value != CK_FALSE) : std::nullopt;
}

Outcome<std::vector<CK_OBJECT_HANDLE>> findObjects(const Module& module, CK_SESSION_HANDLE session, Template& filter,
                                                   size_t most) {
  noteCall("C_FindObjectsInit");
  if (const CK_RV rv = module->C_FindObjectsInit(session, filter.data(), filter.size()); rv != CKR_OK)
    return failed(rv);
  std::vector<CK_OBJECT_HANDLE> found;
  std::array<CK_OBJECT_HANDLE, 16> some{};
  CK_RV rv = CKR_OK;
  while (found.size() < most) {
    CK_ULONG count = 0;
    noteCall("C_FindObjects");
    rv = module->C_FindObjects(session, some.data(), some.size(), &count);
    if (rv != CKR_OK || count == 0 || count > some.size()) break;
    for (CK_ULONG i = 0; i < count && found.size() < most; ++i) found.push_back(some[i]);
  }
  module->C_FindObjectsFinal(session);
  if (rv != CKR_OK) return failed(rv);
  return found;
}

}  // namespace sallyport::hsmd
