// armor.h - a boxed file as text, for places that carry nothing else (mail, chat, a terminal). Part of: proto/file
// (pure; any process). docs/protocol.md §11.
//
//   -----BEGIN SALLYPORT BOX-----
//   base64 of 48 bytes a line, the last line of 1 to 48
//   -----END SALLYPORT BOX-----
//
// Strict: padding in the last line alone, no spaces, no empty line, nothing before and nothing behind. A line ends with
// LF, or with CR LF as mail has it; the last one may have no end. Armor protects nothing: what is in it does.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/bytes.h"
#include "common/result.h"

namespace sallyport::file {

inline constexpr std::string_view ARMOR_BEGIN = "-----BEGIN SALLYPORT BOX-----";
inline constexpr std::string_view ARMOR_END = "-----END SALLYPORT BOX-----";
inline constexpr size_t ARMOR_LINE_BYTES = 48;  // of the file; 64 letters

enum class ArmorFault : uint8_t {
  NotArmor,     // another first line
  BadLine,      // a line that nobody writes
  CutOff,       // the END line is missing
  BytesBehind,  // something follows it
};
// In words: "is cut off".
std::string_view describe(ArmorFault fault);

class ArmorWriter {
 public:
  // The text for these bytes, as far as whole lines go; the BEGIN line with the first ones.
  std::string write(ByteSpan bytes);
  // The rest of it. Once, and nothing after it.
  std::string finish();

 private:
  std::vector<std::byte> line_;
  bool begun_ = false;
};

class ArmorReader {
 public:
  // Appends what this piece of the text holds. After a fault: the same fault again.
  Result<void, ArmorFault> read(std::string_view text, std::vector<std::byte>& out);
  // The text is over.
  Result<void, ArmorFault> finish(std::vector<std::byte>& out);

 private:
  enum class Part : uint8_t { Begin, Body, LastLine, End };
  Result<void, ArmorFault> takeLine(std::vector<std::byte>& out);
  Unexpected<ArmorFault> die(ArmorFault fault);

  std::string line_;  // what of it came
  Part part_ = Part::Begin;
  bool dead_ = false;
  ArmorFault fault_ = ArmorFault::NotArmor;
};

}  // namespace sallyport::file
