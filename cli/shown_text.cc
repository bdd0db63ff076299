// shown_text.cc - see shown_text.h.
#include "cli/shown_text.h"

namespace sallyport::cli {

bool ShownText::takeByte(unsigned char c) {
  if (missing_ > 0) {
    const bool control = mayBeControl_ && c < 0xa0;
    mayBeControl_ = false;
    --missing_;
    return c >= 0x80 && c <= 0xbf && !control;
  }
  if (c < 0x20) return c == '\n' || c == '\t' || c == '\r';
  if (c < 0x7f) return true;
  if (c < 0xc2 || c > 0xf4) return false;
  missing_ = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
  mayBeControl_ = c == 0xc2;
  return true;
}

bool ShownText::take(ByteSpan piece) {
  for (const std::byte byte : piece) good_ = good_ && takeByte(static_cast<unsigned char>(byte));
  return good_;
}

}  // namespace sallyport::cli
