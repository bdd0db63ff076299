// arguments.cc - see arguments.h.
#include "cli/arguments.h"

#include <algorithm>
#include <iterator>

#include "common/config.h"

namespace sallyport::cli {
namespace {

Invocation mistake(std::string problem, std::string hint) {
  Invocation result;
  result.problem = std::move(problem);
  result.hint = std::move(hint);
  return result;
}

// The command whose name stands at the beginning of the words: "key slot add" before "key slot" before "key".
const Command* findCommand(std::span<const Command> commands, const std::vector<std::string>& words) {
  const std::string one = words.empty() ? "" : words[0];
  const std::string two = words.size() < 2 ? one : one + " " + words[1];
  const std::string three = words.size() < 3 ? two : two + " " + words[2];
  for (const auto& name : {three, two, one}) {
    for (const auto& command : commands) {
      if (command.name == name) return &command;
    }
  }
  return nullptr;
}

Invocation unknownCommand(std::span<const Command> commands, const std::vector<std::string>& words) {
  std::vector<std::string_view> names;
  std::string group;
  for (const auto& command : commands) {
    names.push_back(command.name);
    if (command.name.starts_with(words[0] + " ")) {
      group += (group.empty() ? "" : ", ") + std::string(command.name.substr(words[0].size() + 1));
    }
  }
  const auto given = words[0] + (words.size() > 1 && !group.empty() ? " " + words[1] : "");
  if (!group.empty()) {
    return mistake(words.size() == 1 ? "`" + given + "` needs a command" : "no command `" + given + "`",
                   "one of: " + group);
  }
  auto guess = nearest(words.size() > 1 ? words[0] + " " + words[1] : given, names);
  if (guess.empty()) guess = nearest(given, names);
  return mistake("no command `" + given + "`",
                 guess.empty() ? "sallyport --help" : "did you mean `" + std::string(guess) + "`?");
}

// `command` is the one that is probably meant, or null.
std::string helpOf(const Command* command) {
  return "sallyport " + (command == nullptr ? "" : std::string(command->name) + " ") + "--help";
}

// An option of another one would be refused as well.
Invocation unknownOption(const std::string& option, const Command* command, const std::vector<std::string>& known) {
  std::vector<std::string_view> names(known.begin(), known.end());
  if (command != nullptr) {
    names = {"--config", "--help", "--version"};
    names.insert(names.end(), command->options.begin(), command->options.end());
  }
  for (auto& name : names) name = name.substr(0, name.find('='));
  const auto guess = nearest(option, names);
  return mistake("no option `" + option + "`",
                 guess.empty() ? helpOf(command) : "did you mean `" + std::string(guess) + "`?");
}

}  // namespace

Invocation parseCommandLine(std::span<const Command> commands, const std::vector<std::string>& words) {
  // Options that take a value are the same for all commands that have them, so they are known before the command is.
  std::vector<std::string> known{"--config=", "--help", "--version"};
  for (const auto& command : commands) known.insert(known.end(), command.options.begin(), command.options.end());
  const auto isKnown = [&](const std::string& option) { return std::ranges::find(known, option) != known.end(); };

  Invocation result;
  bool optionsEnded = false;
  for (size_t i = 0; i < words.size(); ++i) {
    std::string word = words[i];
    if (optionsEnded || word.size() < 2 || word[0] != '-') {
      result.arguments.words.push_back(word);
      continue;
    }
    if (word == "--") {
      optionsEnded = true;
      continue;
    }
    if (word == "-h") word = "--help";
    if (word == "-V") word = "--version";
    if (word == "-f") word = "--follow";
    if (word == "-n") word = "--lines";
    if (word == "-o") word = "--output";
    if (word == "-a") word = "--armor";
    if (word.starts_with("-c") && word.size() > 2) word = "--config=" + word.substr(2);
    if (word == "-c") word = "--config";
    const auto equals = word.find('=');
    const auto option = word.substr(0, equals);
    const bool repeats = isKnown(option + "=*");
    const bool takesValue = repeats || isKnown(option + "=");
    // The command that is probably meant: its words may stand behind the option.
    const auto likely = [&] {
      const auto rest = std::span(words).subspan(std::min(i + 1, words.size()));
      auto positional = result.arguments.words;
      std::ranges::copy_if(rest, std::back_inserter(positional),
                           [](const std::string& other) { return !other.starts_with('-'); });
      return findCommand(commands, positional);
    };
    if (!takesValue && !isKnown(option)) return unknownOption(option, likely(), known);
    if (!takesValue && equals != word.npos) return mistake("`" + option + "` takes no value", helpOf(likely()));
    if (!repeats && result.arguments.has(option)) return mistake("`" + option + "` is given twice", helpOf(likely()));
    std::string value;
    if (takesValue) {
      if (equals == word.npos && ++i == words.size())
        return mistake("`" + option + "` needs a value", helpOf(likely()));
      value = equals == word.npos ? words[i] : word.substr(equals + 1);
      if (value.empty()) return mistake("the value of `" + option + "` is empty", helpOf(likely()));
    }
    result.arguments.options[option] = value;
    if (repeats) result.arguments.lists[option].push_back(value);
  }

  auto& positional = result.arguments.words;
  if (!positional.empty() && positional[0] == "help") {
    positional.erase(positional.begin());
    result.arguments.options["--help"] = "";
  }
  const bool help = result.arguments.has("--help");
  if (result.arguments.has("--version") || (positional.size() == 1 && positional[0] == "version")) {
    result.kind = Invocation::Kind::Version;
    return result;
  }
  if (positional.empty()) {
    if (!help) return mistake("no command given", "sallyport --help");
    result.kind = Invocation::Kind::Help;
    return result;
  }
  const auto* command = findCommand(commands, positional);
  if (help) {
    const bool isGroup = std::ranges::any_of(
        commands, [&](const Command& other) { return other.name.starts_with(positional[0] + " "); });
    if (command == nullptr && (!isGroup || positional.size() > 1)) return unknownCommand(commands, positional);
    result.kind = Invocation::Kind::Help;
    result.command = command;
    if (command == nullptr) result.group = positional[0];
    return result;
  }
  if (command == nullptr) return unknownCommand(commands, positional);
  positional.erase(positional.begin(), positional.begin() + 1 + std::ranges::count(command->name, ' '));
  const auto usage = "usage: sallyport " + std::string(command->name) + (command->synopsis.empty() ? "" : " ") +
                     std::string(command->synopsis);
  if (positional.size() < command->minWords)
    return mistake("`" + std::string(command->name) + "` needs more words", usage);
  if (positional.size() > command->maxWords) {
    // Not the word itself: it may be a secret that was meant for standard input.
    const auto most = command->maxWords == 0 ? "no words" : std::to_string(command->maxWords) + " at most";
    return mistake("`" + std::string(command->name) + "` takes " + most + ": one word too many", usage);
  }
  for (const auto& [option, value] : result.arguments.options) {
    const bool takes =
        option == "--config" || std::ranges::any_of(command->options, [&option = option](std::string_view own) {
          return own == option || own == option + "=" || own == option + "=*";
        });
    if (!takes) return mistake("`" + std::string(command->name) + "` has no option `" + option + "`", usage);
  }
  result.kind = Invocation::Kind::Run;
  result.command = command;
  return result;
}

namespace {

// Options that several commands share are described once, here.
constexpr std::string_view KEYS_OPTION =
    "  --keys DIR              the folder; else [vault] keys of the configuration, else `keys` here\n";
constexpr std::string_view CONFIG_OPTION =
    "  -c, --config FILE       sallyport.toml; without it: the one here, then /etc/sallyport/sallyport.toml\n";

std::string head(const Command& command) {
  return std::string(command.name) + (command.synopsis.empty() ? "" : " ") + std::string(command.synopsis);
}

std::string table(std::span<const Command> commands, std::string_view prefix) {
  size_t width = 0;
  for (const auto& command : commands) {
    if (command.name.starts_with(prefix)) width = std::max(width, head(command).size());
  }
  std::string text;
  for (const auto& command : commands) {
    if (!command.name.starts_with(prefix)) continue;
    text +=
        "  " + head(command) + std::string(width - head(command).size() + 2, ' ') + std::string(command.summary) + "\n";
  }
  return text;
}

}  // namespace

std::string helpFor(const Command& command) {
  const bool keys = std::ranges::find(command.options, "--keys=") != command.options.end();
  std::string text = "usage: sallyport " + head(command) + (keys ? " [--keys DIR]" : "") + " [-c FILE]\n\n" +
                     std::string(command.summary) + ".\n\n";
  if (!command.text.empty()) text += std::string(command.text) + "\n";
  return text + std::string(keys ? KEYS_OPTION : "") + std::string(CONFIG_OPTION);
}

std::string helpForGroup(std::span<const Command> commands, std::string_view group) {
  const std::string name(group);
  return "usage: sallyport " + name + " COMMAND [-c FILE] ...\n\n" + table(commands, name + " ") + "\n  `sallyport " +
         name + " COMMAND --help` tells more\n";
}

std::string helpForAll(std::span<const Command> commands) {
  std::string text =
      "sallyport - authenticated, encrypted channels; the keys stay behind a second door\n"
      "\n"
      "usage: sallyport COMMAND [-c FILE] ...\n"
      "\n";
  return text + table(commands, "") + "\n" + std::string(CONFIG_OPTION) +
         "  -V, --version           print the version\n"
         "  -h, --help              this text; after a command: more about it\n"
         "\n"
         "examples:\n"
         "  sallyport key new server                a key; prints its public half and the line for the other side\n"
         "  sallyport peer add alice KEY            who may come in\n"
         "  sallyport check && sallyport up         vault and net daemon in the foreground\n"
         "  tar c . | sallyport pipe backup         standard input and output through the [[connect]] entry `backup`\n"
         "\n"
         "exit status: 0 done, 1 refused or failed (one line on standard error says which), 2 usage\n";
}

}  // namespace sallyport::cli
