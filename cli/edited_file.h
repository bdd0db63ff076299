// edited_file.h - a file that is read, changed and replaced as one step. Part of: cli.
// Two commands that edit the same file take turns; a reader sees the old text or the new one, whatever happens.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <kj/io.h>

#include "common/result.h"

namespace sallyport::cli {

class EditedFile {
 public:
  // Opens, locks and reads at most `maxBytes` of a regular file; a symbolic link is followed, and stays. The error is
  // for people and names the file.
  static Result<EditedFile, std::string> open(const std::filesystem::path& path, size_t maxBytes);

  const std::string& text() const { return text_; }
  // Temporary file with the same mode and owner, fsync, rename, fsync of the folder.
  Result<void, std::string> replace(std::string_view text);

 private:
  EditedFile(std::filesystem::path path, kj::AutoCloseFd fd) : path_(std::move(path)), fd_(kj::mv(fd)) {}

  std::filesystem::path path_;  // the real one
  kj::AutoCloseFd fd_;          // holds the lock
  std::string text_;
};

}  // namespace sallyport::cli
