// main.cc - runs the tests with libsodium initialised and KJ silent, as in the daemon.
#include <gtest/gtest.h>
#include <sodium.h>

#include <csignal>

#include "common/check.h"
#include "common/quiet_kj.h"

int main(int argc, char** argv) {
  sallyport::QuietKj quiet;
  CHECK(sodium_init() >= 0);
  std::signal(SIGPIPE, SIG_IGN);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
