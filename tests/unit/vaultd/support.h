// support.h - temporary folders, files and the values of tests/vectors/curve_tun.json for the tests of vaultd.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "common/bytes.h"
#include "tests/unit/temporary_folder.h"
#include "vaultd/key_format.h"

namespace sallyport::vaultd::test {

namespace fs = std::filesystem;

using sallyport::test::TemporaryFolder;

inline std::string readFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

inline void writeFile(const fs::path& path, std::string_view text, mode_t mode = 0600) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
  CHECK(chmod(path.c_str(), mode) == 0);
}

inline std::vector<std::byte> hex(std::string_view text) {
  auto bytes = fromHex(text);
  CHECK(bytes.has_value());
  return *bytes;
}

// The first value of "name" at or after `from` in the vector file: it is flat enough for that.
inline std::string vectorText(const std::string& name, size_t from = 0, size_t* end = nullptr) {
  static const std::string FILE = readFile(SALLYPORT_VECTORS "/curve_tun.json");
  const std::string key = "\"" + name + "\": \"";
  size_t begin = FILE.find(key, from);
  CHECK(begin != std::string::npos);
  begin += key.size();
  const size_t close = FILE.find('"', begin);
  if (end != nullptr) *end = close;
  return FILE.substr(begin, close - begin);
}
inline std::vector<std::byte> vector(const std::string& name) { return hex(vectorText(name)); }

inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace sallyport::vaultd::test
