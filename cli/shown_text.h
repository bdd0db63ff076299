// shown_text.h - may these bytes go to a terminal? Part of: cli.
#pragma once

#include "common/bytes.h"

namespace sallyport::cli {

// UTF-8 without what moves a cursor: no control character but newline, tab and carriage return, neither of ASCII nor of
// the second set (U+0080 to U+009F), which terminals obey too. A text may come in any pieces.
class ShownText {
 public:
  // False: the pieces so far are no such text. Then it stays so.
  bool take(ByteSpan piece);

 private:
  bool takeByte(unsigned char c);

  int missing_ = 0;            // bytes of a character that has begun
  bool mayBeControl_ = false;  // C2 came: a byte below A0 makes it a control character
  bool good_ = true;
};

}  // namespace sallyport::cli
