// armor.cc - see armor.h.
#include "proto/file/armor.h"

#include <algorithm>

namespace sallyport::file {
namespace {

constexpr size_t LINE_LETTERS = ARMOR_LINE_BYTES / 3 * 4;
constexpr size_t MAX_LINE_LETTERS = LINE_LETTERS + 1;  // and a CR
static_assert(ARMOR_BEGIN.size() <= LINE_LETTERS && ARMOR_END.size() <= LINE_LETTERS);

}  // namespace

std::string_view describe(ArmorFault fault) {
  switch (fault) {
    case ArmorFault::NotArmor: return "is not a boxed file as text: its first line is another one";
    case ArmorFault::BadLine: return "was changed: a line is not as box --armor writes it";
    case ArmorFault::CutOff: return "is cut off: its END line is missing";
    case ArmorFault::BytesBehind: return "goes on behind its END line";
  }
  return "is damaged";
}

std::string ArmorWriter::write(ByteSpan bytes) {
  std::string text;
  if (!begun_) text = std::string(ARMOR_BEGIN) + "\n";
  begun_ = true;
  while (!bytes.empty()) {
    const ByteSpan piece = bytes.first(std::min(bytes.size(), ARMOR_LINE_BYTES - line_.size()));
    line_.insert(line_.end(), piece.begin(), piece.end());
    bytes = bytes.subspan(piece.size());
    if (line_.size() < ARMOR_LINE_BYTES) break;
    text += toBase64(line_) + "\n";
    line_.clear();
  }
  return text;
}

std::string ArmorWriter::finish() {
  std::string text = write({});
  if (!line_.empty()) text += toBase64(line_) + "\n";
  line_.clear();
  return text + std::string(ARMOR_END) + "\n";
}

Unexpected<ArmorFault> ArmorReader::die(ArmorFault fault) {
  if (!dead_) fault_ = fault;
  dead_ = true;
  return refuse(fault_);
}

// `line_` is a whole line, without its end.
Result<void, ArmorFault> ArmorReader::takeLine(std::vector<std::byte>& out) {
  if (line_.ends_with('\r')) line_.pop_back();
  if (part_ == Part::Begin) {
    if (line_ != ARMOR_BEGIN) return die(ArmorFault::NotArmor);
    part_ = Part::Body;
  } else if (line_ == ARMOR_END) {
    part_ = Part::End;
  } else {
    const auto bytes = fromBase64(line_);
    // One spelling each: padding that is missing, or bits behind the last byte, would be another one.
    if (part_ != Part::Body || !bytes || bytes->empty() || toBase64(*bytes) != line_) return die(ArmorFault::BadLine);
    if (bytes->size() < ARMOR_LINE_BYTES) part_ = Part::LastLine;
    out.insert(out.end(), bytes->begin(), bytes->end());
  }
  line_.clear();
  return {};
}

Result<void, ArmorFault> ArmorReader::read(std::string_view text, std::vector<std::byte>& out) {
  if (dead_) return refuse(fault_);
  while (!text.empty()) {
    if (part_ == Part::End) return die(ArmorFault::BytesBehind);
    const size_t end = text.find('\n');
    const std::string_view piece = text.substr(0, end);
    // Whatever comes, no more is kept than a line may have.
    if (line_.size() + piece.size() > MAX_LINE_LETTERS)
      return die(part_ == Part::Begin ? ArmorFault::NotArmor : ArmorFault::BadLine);
    line_ += piece;
    if (end == text.npos) return {};
    text.remove_prefix(end + 1);
    if (auto taken = takeLine(out); !taken) return taken;
  }
  return {};
}

Result<void, ArmorFault> ArmorReader::finish(std::vector<std::byte>& out) {
  if (dead_) return refuse(fault_);
  if (!line_.empty()) {
    if (auto taken = takeLine(out); !taken) return taken;
  }
  if (part_ == Part::Begin) return die(ArmorFault::NotArmor);
  if (part_ != Part::End) return die(ArmorFault::CutOff);
  return {};
}

}  // namespace sallyport::file
