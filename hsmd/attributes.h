// attributes.h - what objects are asked and made of. Part of: hsmd (worker and probe). Lengths that a module returns
// are held against the buffer that it got; what doesn't fit is no answer.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "hsmd/module.h"

namespace sallyport::hsmd {

// A CK_ATTRIBUTE array with its values. Bytes and texts are referred to: they must outlive the template.
class Template {
 public:
  Template& flag(CK_ATTRIBUTE_TYPE type, bool value);
  Template& number(CK_ATTRIBUTE_TYPE type, CK_ULONG value);
  Template& bytes(CK_ATTRIBUTE_TYPE type, ByteSpan value);
  Template& text(CK_ATTRIBUTE_TYPE type, std::string_view value) { return bytes(type, asBytes(value)); }
  CK_ATTRIBUTE* data() { return attributes_.data(); }
  CK_ULONG size() const { return attributes_.size(); }

 private:
  static constexpr size_t MAX_ATTRIBUTES = 24;
  void add(CK_ATTRIBUTE_TYPE type, const void* value, size_t length);
  std::vector<CK_ATTRIBUTE> attributes_;
  std::array<CK_ULONG, MAX_ATTRIBUTES> numbers_{};
  std::array<CK_BBOOL, MAX_ATTRIBUTES> flags_{};
};

// The value in `buffer`, cut to its length; nothing if the object hasn't got it, hides it, or it is longer.
std::optional<ByteSpan> attribute(const Module& module, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                                  CK_ATTRIBUTE_TYPE type, MutableByteSpan buffer);
std::optional<CK_ULONG> numberAttribute(const Module& module, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                                        CK_ATTRIBUTE_TYPE type);
std::optional<bool> flagAttribute(const Module& module, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                                  CK_ATTRIBUTE_TYPE type);

// At most `most` objects.
Outcome<std::vector<CK_OBJECT_HANDLE>> findObjects(const Module& module, CK_SESSION_HANDLE session, Template& filter,
                                                   size_t most);

}  // namespace sallyport::hsmd
