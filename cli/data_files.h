// data_files.h - the input and output of commands that work on data: a file, or standard input and output. Part of:
// cli. An output file appears under its name when it is whole and on the disk, or not at all. Errors are text for
// people.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <kj/io.h>

#include "common/bytes.h"
#include "common/result.h"
#include "proto/file/armor.h"

namespace sallyport::cli {

class InputFile {
 public:
  // `path` "-" or empty: standard input.
  static Result<InputFile, std::string> open(const std::string& path);

  // If the first byte is that of armor (proto/file/armor.h), read() gives what is in it. Before the first read().
  Result<void, std::string> takeOffArmor();
  // Fills `bytes`, or gives fewer at the end of the input.
  Result<size_t, std::string> read(MutableByteSpan bytes);
  const std::string& name() const { return name_; }

 private:
  InputFile(std::string name, kj::AutoCloseFd own, int fd) : name_(std::move(name)), own_(kj::mv(own)), fd_(fd) {}
  Result<size_t, std::string> readRaw(MutableByteSpan bytes);
  Result<void, std::string> readArmor();

  std::string name_;
  kj::AutoCloseFd own_;  // none for standard input
  int fd_;
  std::vector<std::byte> ahead_;  // read and not given yet
  size_t given_ = 0;              // of them
  std::optional<file::ArmorReader> armor_;
  bool atEnd_ = false;
};

// An input in blocks of one size, each with the knowledge whether it is the last one.
class BlockInput {
 public:
  // `buffer` has one byte more than a block, and holds what next() gives until it is called again.
  BlockInput(InputFile& input, MutableByteSpan buffer) : input_(input), buffer_(buffer) {}

  struct Block {
    ByteSpan bytes;  // shorter than a block only if it is the last, and empty only if there is nothing at all
    bool last;
  };
  Result<Block, std::string> next();

 private:
  InputFile& input_;
  MutableByteSpan buffer_;
  bool ahead_ = false;  // the last byte of the buffer is the first one of the next block
};

class OutputFile {
 public:
  // `path` "-" or empty: standard output. A path of anything but a regular file (a device, a pipe) is written directly.
  // `mode` is that of a new file, of which the umask takes its part.
  static Result<OutputFile, std::string> create(const std::string& path, mode_t mode);
  // What was not finished leaves nothing behind.
  ~OutputFile();
  OutputFile(OutputFile&& other) noexcept;
  OutputFile(const OutputFile&) = delete;

  // What is written goes out as text. Before the first write().
  void putOnArmor() { armor_.emplace(); }
  Result<void, std::string> write(ByteSpan bytes);
  // Everything is on the disk, and has its name.
  Result<void, std::string> finish();

 private:
  OutputFile(std::string name, kj::AutoCloseFd own, int fd) : name_(std::move(name)), own_(kj::mv(own)), fd_(fd) {}
  Result<void, std::string> writeRaw(ByteSpan bytes);

  std::string name_;
  std::filesystem::path target_;     // empty: written directly
  std::filesystem::path temporary_;  // empty: it has no name yet
  kj::AutoCloseFd own_;
  int fd_;
  std::optional<file::ArmorWriter> armor_;
};

// Output that would go to a terminal because nothing says where else.
bool goesToTerminal(const std::string& path);

}  // namespace sallyport::cli
