// birth.h - what a child tells its keeper: frames of proto/hsm on a socket that all children inherit. Part of: hsmd.
// WorkerUp, WorkerLayer, WorkerDied before an end of its own will, and a Denials frame that carries the descriptor on
// which the kernel tells of refused system calls.
#pragma once

#include "proto/hsm/frames.h"

namespace sallyport::hsmd {

class Birth {
 public:
  Birth(int socket, uint32_t epoch) : socket_(socket), epoch_(epoch) {}

  uint32_t epoch() const { return epoch_; }
  // `detail`: why it isn't logged in.
  void up(hsm::Status login, std::string_view detail = {}) const;
  void layer(std::string_view name, uint8_t state, std::string_view detail) const;
  void listener(int fd) const;
  // Tells why, and ends the process without another line of the module's code.
  [[noreturn]] void die(hsm::Status status, std::string_view detail = {}) const;

 private:
  void send(const hsm::Control& control, int fd = -1) const;
  int socket_;
  uint32_t epoch_;
};

}  // namespace sallyport::hsmd
