// state_file.h - what all small state files of the vault have in common: opened and locked before lock-down, written in
// place, and recognised when they were copied or restored. Part of: vaultd's key library. docs/protocol.md §9.
#pragma once

#include <array>
#include <memory>
#include <string_view>

#include <kj/io.h>

#include "vaultd/nonce_ledger.h"

namespace sallyport::vaultd {

// `fd`'s bytes.
std::unique_ptr<NonceDisk> diskOf(kj::AutoCloseFd fd);
// BLAKE2b-128 of `content` under the key `domain`.
std::array<std::byte, 16> stateHash(std::string_view domain, ByteSpan content);
// Changes when the file is copied, restored from a backup, or carried to another machine: machine id, inode number, and
// where the file system knows it the time of the file's birth (inode numbers are used again).
std::array<std::byte, 16> placeOfFile(int fd);
// For the life of the descriptor. False with EAGAIN or EACCES: another process has it.
bool lockFile(int fd);
// So that a later write in place doesn't meet a full disk. False: errno says why.
bool allocateFile(int fd, size_t bytes);

}  // namespace sallyport::vaultd
