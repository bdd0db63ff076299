// database_files.h - are the files of a token in files still where they were? Part of: hsmd (worker).
// NSS's softoken keeps its databases open for life: renamed or deleted ones serve on, and a token that was pulled would
// go unnoticed. Another module opens its files anew at each use and needs none of this.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace sallyport::hsmd {

class DatabaseFiles {
 public:
  DatabaseFiles() = default;
  // NSS's databases in this folder, as they are now; of none there nothing is ever missed.
  static DatabaseFiles ofNss(const std::filesystem::path& folder);

  // Each is there by its name, and the same file.
  bool areThere() const;

 private:
  struct File {
    std::string path;
    dev_t device;
    ino_t inode;
  };
  std::vector<File> files_;
};

}  // namespace sallyport::hsmd
