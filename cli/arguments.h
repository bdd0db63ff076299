// arguments.h - the command line of one command, already checked against its table entry. Part of: cli.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sallyport::cli {

struct Arguments {
  std::vector<std::string> words;                         // positional ones, the command itself left out
  std::map<std::string, std::string> options;             // "--json" -> "", "--keys" -> "DIR"
  std::map<std::string, std::vector<std::string>> lists;  // of options that may be repeated: "--to" -> {"alice", "bob"}

  bool has(const std::string& option) const { return options.contains(option); }
  // The option's value, empty if it wasn't given.
  std::string get(const std::string& option) const { return has(option) ? options.at(option) : ""; }
  std::vector<std::string> all(const std::string& option) const {
    return lists.contains(option) ? lists.at(option) : std::vector<std::string>();
  }
};

// One command of the table in main.cc; `sallyport help` is made of it.
struct Command {
  std::string_view name;      // "key new"
  std::string_view synopsis;  // "NAME [--passphrase]"
  std::string_view summary;   // one line
  std::vector<std::string_view>
      options;  // "--json", or "--keys=" if it takes a value, "--to=*" if several; --config is always known
  size_t minWords;
  size_t maxWords;
  int (*run)(const Arguments&);
  std::string_view text;  // the rest of its --help; may be empty
};

// What the command line asks for. `command` is null for the general help, a version, or a mistake.
struct Invocation {
  enum class Kind { Run, Help, Version, Mistake };
  Kind kind = Kind::Mistake;
  const Command* command = nullptr;
  std::string group;  // of a Help: "key" for the commands that begin with it; empty: all
  Arguments arguments;
  std::string problem;  // of a mistake
  std::string hint;
};

// `words` is argv without the program's name. Options may stand anywhere; `--` ends them; values follow as `--keys DIR`
// or
// `--keys=DIR`; `-c FILE` is short for `--config FILE`.
Invocation parseCommandLine(std::span<const Command> commands, const std::vector<std::string>& words);

// Help for one command, for those of a group ("key"), and for all of them.
std::string helpFor(const Command& command);
std::string helpForGroup(std::span<const Command> commands, std::string_view group);
std::string helpForAll(std::span<const Command> commands);

}  // namespace sallyport::cli
