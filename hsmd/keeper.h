// keeper.h - watches over the processes that load a module: probes before workers, workers again after they ended, and
// the client is told. Part of: hsmd (keeper). docs/protocol.md §12.
// It has no module, no PIN and no page of the client's, and after its lock-down no call to get any.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "hsmd/board.h"
#include "hsmd/launcher.h"
#include "hsmd/pin_page.h"
#include "hsmd/restart_plan.h"

namespace sallyport::hsmd {

class Keeper {
 public:
  struct Sockets {
    int control = -1;   // the client
    int launcher = -1;  // orders and events
    int birth = -1;     // what children tell
  };
  // `stepMs`: how long a child may take for its next step on the board, or to come up, before it is ended.
  Keeper(Sockets sockets, SharedMemory board, std::string token, uint64_t stepMs);

  // Until the client is gone, or wants it to end. 0: as wanted.
  int run();

 private:
  enum class State : uint8_t { Waiting, Probing, Starting, Serving };

  static uint64_t nowMs();
  int timeoutMs() const;
  void checkTime();
  void begin();
  void probe();
  void order(Order what);
  void tell(const hsm::Control& control);
  bool hearClient();
  bool hearLauncher();
  void hearChild();
  void childEnded(int waitStatus);
  void workerDied(hsm::Status status, int waitStatus, bool wanted);
  void hearDenial();
  void reportDenials();
  void closeListener();

  Sockets sockets_;
  SharedMemory board_;
  std::string token_;
  uint64_t stepMs_;
  RestartPlan plan_;
  State state_ = State::Waiting;
  uint64_t dueMs_ = 0;       // Waiting: the next start. Probing, Starting: when it is given up
  uint32_t boardSteps_ = 0;  // Probing: as last seen
  uint32_t epoch_ = 0;
  uint32_t pid_ = 0;
  std::optional<hsm::Status> lastWords_;
  bool gaveUp_ = false;  // killed by us for its time
  std::optional<hsm::KillReason> killedFor_;
  int listener_ = -1;
  uint64_t denials_ = 0;
  uint64_t denialsTold_ = 0;
  uint64_t denialsToldMs_ = 0;
  std::array<uint64_t, 8> denialsLogged_{};  // by number of the call
  std::string lastDenied_;
};

}  // namespace sallyport::hsmd
