// json.h - writes JSON, indented by two spaces, in the order of the calls. Part of: cli.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sallyport::cli {

class JsonWriter {
 public:
  JsonWriter& beginObject() { return open('{', '}'); }
  JsonWriter& beginArray() { return open('[', ']'); }
  JsonWriter& end();
  JsonWriter& key(std::string_view name);
  JsonWriter& value(std::string_view text);
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(uint64_t number) { return raw(std::to_string(number)); }
  JsonWriter& value(bool truth) { return raw(truth ? "true" : "false"); }
  template <typename T>
  JsonWriter& member(std::string_view name, const T& content) {
    return key(name).value(content);
  }

  // The text, with a newline at its end; every begin has had its end.
  std::string finish();

 private:
  JsonWriter& open(char first, char last);
  JsonWriter& raw(std::string_view text);
  void separate();

  std::string text_;
  std::vector<char> closing_;
  bool first_ = true;  // nothing stands in the innermost object or array yet
  bool afterKey_ = false;
};

}  // namespace sallyport::cli
