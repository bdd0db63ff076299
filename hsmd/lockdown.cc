// lockdown.cc - see lockdown.h. Part of: hsmd (worker).
#include "hsmd/lockdown.h"

namespace sallyport::hsmd {

bool lockDown(const Birth& birth, const WorkerSettings& settings, hsm::Status login, bool restricted) {
  birth.up(login);
  return true;
}

}  // namespace sallyport::hsmd
