// Goal: what a fuzzer once found, or was given to begin with, is run by every build and every compiler.
// Method: feeds each file of the folders given to LLVMFuzzerTestOneInput, and single bytes and cut files as well.
// `--must-die` is for the canary: each file must end the process. A target may say what its corpus must have reached:
// without that a corpus that knocks at a closed door all day would pass.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" __attribute__((weak)) int LLVMFuzzerInitialize(int* argc, char*** argv);
// What should have been reached and wasn't; nullptr if all was.
extern "C" __attribute__((weak)) const char* fuzzUnreached();

namespace {

std::string readFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// A copy of its exact size, so that a sanitizer sees a read beyond its end.
void feed(const std::string& bytes) {
  const std::vector<uint8_t> exact(bytes.begin(), bytes.end());
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

bool dies(const std::string& bytes) {
  const pid_t child = fork();
  if (child == 0) {
    close(STDERR_FILENO);  // its last words are expected
    feed(bytes);
    _exit(0);
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && (WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
}

}  // namespace

int main(int argc, char** argv) {
  if (LLVMFuzzerInitialize != nullptr) LLVMFuzzerInitialize(&argc, &argv);
  const bool mustDie = argc > 1 && std::strcmp(argv[1], "--must-die") == 0;
  size_t files = 0;
  for (int i = mustDie ? 2 : 1; i < argc; ++i) {
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    for (const auto& path : paths) {
      const std::string bytes = readFile(path);
      ++files;
      if (mustDie) {
        if (dies(bytes)) continue;
        std::printf("%s was not noticed\n", path.c_str());
        return 1;
      }
      std::printf("%s\n", path.c_str());
      std::fflush(stdout);
      feed(bytes);
      for (size_t part = 1; part < 8; ++part) feed(bytes.substr(0, bytes.size() * part / 8));
    }
  }
  if (!mustDie) {
    feed({});
    for (int value = 0; value < 256; ++value) feed(std::string(1, static_cast<char>(value)));
  }
  std::printf("%zu files\n", files);
  const char* unreached = !mustDie && fuzzUnreached != nullptr ? fuzzUnreached() : nullptr;
  if (unreached != nullptr) std::printf("no file of the corpus reaches %s\n", unreached);
  return files > 0 && unreached == nullptr ? 0 : 1;
}
