// database_files.cc - see database_files.h. Part of: hsmd (worker).
#include "hsmd/database_files.h"

#include <sys/stat.h>

#include <algorithm>

namespace sallyport::hsmd {

DatabaseFiles DatabaseFiles::ofNss(const std::filesystem::path& folder) {
  DatabaseFiles found;
  std::error_code fault;
  for (std::filesystem::directory_iterator at(folder, fault), end; !fault && at != end; at.increment(fault)) {
    // Behind the prefixes that init_args may give them: of keys and of certificates.
    const std::string name = at->path().filename().string();
    if (!name.ends_with("key4.db") && !name.ends_with("cert9.db")) continue;
    struct stat status {};
    if (stat(at->path().c_str(), &status) == 0)
      found.files_.push_back({.path = at->path().string(), .device = status.st_dev, .inode = status.st_ino});
  }
  return found;
}

bool DatabaseFiles::areThere() const {
  return std::ranges::all_of(files_, [](const File& file) {
    struct stat status {};
    return stat(file.path.c_str(), &status) == 0 && status.st_dev == file.device && status.st_ino == file.inode;
  });
}

}  // namespace sallyport::hsmd
