// terminal.h - how sallyport talks to people and to scripts. Part of: cli.
//
// The rules of terminal output:
//  1. Data goes to standard output: what the command was asked for (a public key, a table, JSON), and nothing else.
//  2. Talk goes to standard error, one line each: `sallyport: …`, `sallyport: warning: …`, `sallyport: error: …`, and
//  after
//     an error perhaps `sallyport: hint: …`. Lower case, no full stop, names the file and the remedy.
//  3. A command that fails says so in one error line (a configuration: one for each mistake), and its status is 1.
//  A wrong command line is 2.
//  4. Questions go to the terminal itself, /dev/tty. Without one a question is an error that names the option to use.
//  5. A secret is never read from an argument: /proc shows arguments to everybody. It is printed only where the command
//     is asked for just that: shares, a recovery passphrase, `key export`.
//  6. Text of foreign origin is printed sanitized: no peer and no daemon moves our cursor.
//  7. No colour, no progress bars, no cursor movement: output looks the same in a file.
//  8. Standard output that can't be written (full disk, closed pipe) is a failure like any other.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sallyport::cli {

inline constexpr int EXIT_DONE = 0;
inline constexpr int EXIT_FAILED = 1;
inline constexpr int EXIT_USAGE = 2;

// Standard error, rules 2 and 3. `hint` may be empty.
void say(std::string_view text);
void warn(std::string_view text);
// Prints the error and gives EXIT_FAILED: `return fail("no such key", "…");`
int fail(std::string_view error, std::string_view hint = {});
int failUsage(std::string_view error, std::string_view hint);

// Standard output, rule 1. put() buffers; finishOutput() flushes and gives EXIT_DONE, or fails by rule 8.
void put(std::string_view text);
void putLine(std::string_view text);
// The same for a secret, past the buffer of standard output; false if it can't be written.
bool putSecretLine(std::string_view text);
int finishOutput();

// Rows under headings, columns as wide as their widest cell; the last one is not padded. Cells are sanitized.
class Table {
 public:
  explicit Table(std::vector<std::string> headings) : rows_{std::move(headings)} {}
  void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.size() == 1; }
  // Each line begins with `indent`.
  std::string render(std::string_view indent = "") const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// "3 d 4 h", "5 min 6 s": the two largest units.
std::string describeSeconds(uint64_t seconds);

}  // namespace sallyport::cli
