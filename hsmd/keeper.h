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
  // What a child has to say: that it is up, where its refused calls are told, a line for each layer of its sandbox, and
  // why it ends. One that says more is ended: all of it goes on to the client.
  static constexpr unsigned MOST_WORDS = 32;

  struct Sockets {
    int control = -1;   // the client
    int launcher = -1;  // orders and events
    int birth = -1;     // what children tell
  };
  // Longer than `stepMs` a step of a child may take if it makes an RSA key.
  static constexpr uint64_t SLOW_STEP_MS = 120'000;
  // `stepMs`: how long a child may take for its next step on the board, or to come up, before it is ended. `lastEpoch`:
  // where the keeper before this one was when it died; 0: there was none.
  Keeper(Sockets sockets, SharedMemory board, std::string token, uint64_t stepMs, uint32_t lastEpoch);

  // Until the client is gone, or wants it to end. 0: as wanted.
  int run();

 private:
  enum class State : uint8_t { Waiting, Probing, Starting, Serving };

  static uint64_t nowMs();
  uint64_t patienceMs();
  int timeoutMs() const;
  void checkTime();
  void begin();
  void probe();
  void order(Order what);
  void start(State state, Order what);
  void tell(const hsm::Control& control);
  void tellOwed();
  bool hearClient();
  bool hearLauncher();
  bool hearChild();
  bool takeWord(const hsm::Control& word, int fd);
  void childEnded(int waitStatus);
  void workerDied(hsm::Status status, int waitStatus, bool wanted);
  std::string detailOf(hsm::Status status, int waitStatus);
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
  unsigned words_ = 0;  // of this child
  std::optional<hsm::Status> lastWords_;
  std::string lastDetail_;            // of them
  std::optional<hsm::Control> owed_;  // how the worker is, if there was no room to say so
  bool gaveUp_ = false;               // killed by us for its time
  std::optional<hsm::KillReason> killedFor_;
  int listener_ = -1;
  uint64_t denials_ = 0;
  uint64_t denialsTold_ = 0;
  uint64_t denialsToldMs_ = 0;
  std::array<uint64_t, 8> denialsLogged_{};  // by number of the call
  std::string lastDenied_;
};

}  // namespace sallyport::hsmd
