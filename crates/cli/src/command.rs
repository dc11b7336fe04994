//! The shape of the command table: one `Command` a command, read by the parser, the help, the manual pages and the
//! completions.

use crate::call::Call;
use crate::failure::Failure;

/// What a command does with its call: the exit status, or why it failed.
pub type Run = fn(&Call) -> Result<u8, Failure>;

/// Commands that stand beside each other.
pub type Commands = &'static [&'static Command];

/// One command, or a group of them.
pub struct Command {
    /// As typed.
    pub name: &'static str,
    /// One line, lower case, no full stop.
    pub summary: &'static str,
    /// What stands after the options in the usage line.
    pub arguments: &'static str,
    /// Paragraphs of help, or nothing.
    pub details: &'static str,
    /// The command's options.
    pub flags: &'static [Flag],
    /// How many arguments it takes.
    pub count: Count,
    /// Where its options may stand.
    pub order: Order,
    /// Whether a process of this program enters a container, which must not reach the program's file from there.
    pub enters: bool,
    /// Whether only people call it: runc has no such command, and no engine reads its messages.
    pub for_people: bool,
    /// What it does.
    pub action: Action,
}

impl Command {
    /// A command without options or arguments.
    pub const fn new(name: &'static str, summary: &'static str, run: Run) -> Command {
        Command::with(name, summary, Action::Run(run))
    }

    /// A word before further commands.
    pub const fn group(name: &'static str, summary: &'static str, commands: Commands) -> Command {
        let (count, order) = (Count::AtLeast(0), Order::First);
        Command { count, order, for_people: true, ..Command::with(name, summary, Action::Group(commands)) }
    }

    const fn with(name: &'static str, summary: &'static str, action: Action) -> Command {
        Command {
            name,
            summary,
            arguments: "",
            details: "",
            flags: &[],
            count: Count::Exactly(0),
            order: Order::Anywhere,
            enters: false,
            for_people: false,
            action,
        }
    }

    /// With arguments, as the usage line shows them.
    pub const fn takes(self, arguments: &'static str, count: Count) -> Command {
        Command { arguments, count, ..self }
    }

    /// With options.
    pub const fn flags(self, flags: &'static [Flag]) -> Command {
        Command { flags, ..self }
    }

    /// With paragraphs of help.
    pub const fn details(self, details: &'static str) -> Command {
        Command { details, ..self }
    }

    /// Entering a container.
    pub const fn enters(self) -> Command {
        Command { enters: true, ..self }
    }

    /// One that only people call.
    pub const fn for_people(self) -> Command {
        Command { for_people: true, ..self }
    }

    /// With options around the first argument only.
    pub const fn options_around_first(self) -> Command {
        Command { order: Order::AroundFirst, ..self }
    }

    /// With options before the first argument only.
    pub const fn options_first(self) -> Command {
        Command { order: Order::First, ..self }
    }
}

/// What a command name stands for.
pub enum Action {
    /// A command.
    Run(Run),
    /// A word before further commands, as in `offshoot image list`.
    Group(Commands),
}

/// The number of arguments, options apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// No more, no less.
    Exactly(usize),
    /// At least.
    AtLeast(usize),
    /// Between two numbers, both included.
    Between(usize, usize),
}

/// Where options may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Before, between and after the arguments.
    Anywhere,
    /// Before the first argument only: what follows belongs to another program.
    First,
    /// Around the first argument: what follows the second belongs to another program.
    AroundFirst,
}

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or `=true`, `=false` as Go writes them.
    Switch,
    /// UTF-8 text.
    Text,
    /// A path, in whatever bytes.
    Path,
    /// A whole number, in Go's notations (`0x1f`, `0o17`, `1_000`).
    Number,
    /// A Go duration (`1m30s`, `100ms`).
    Duration,
}

/// One option.
#[derive(Clone, Copy)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// One letter, or nothing.
    pub short: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether it may be given many times, each adding to the others.
    pub many: bool,
    /// One line of help.
    pub help: &'static str,
    /// What counts when it is not given; empty for nothing.
    pub default: &'static str,
    /// Accepted but not shown.
    pub hidden: bool,
}

impl Flag {
    /// An option that is on or off.
    pub const fn switch(name: &'static str, help: &'static str) -> Flag {
        Flag { name, short: "", kind: Kind::Switch, many: false, help, default: "", hidden: false }
    }

    /// An option that takes text.
    pub const fn text(name: &'static str, help: &'static str) -> Flag {
        Flag { kind: Kind::Text, ..Flag::switch(name, help) }
    }

    /// An option that takes a path.
    pub const fn path(name: &'static str, help: &'static str) -> Flag {
        Flag { kind: Kind::Path, ..Flag::switch(name, help) }
    }

    /// An option that takes a number.
    pub const fn number(name: &'static str, help: &'static str) -> Flag {
        Flag { kind: Kind::Number, ..Flag::switch(name, help) }
    }

    /// An option that takes a duration.
    pub const fn duration(name: &'static str, help: &'static str) -> Flag {
        Flag { kind: Kind::Duration, ..Flag::switch(name, help) }
    }

    /// With a letter.
    pub const fn short(self, short: &'static str) -> Flag {
        Flag { short, ..self }
    }

    /// With a default.
    pub const fn default(self, default: &'static str) -> Flag {
        Flag { default, ..self }
    }

    /// May be given many times.
    pub const fn many(self) -> Flag {
        Flag { many: true, ..self }
    }

    /// Not shown in help.
    pub const fn hidden(self) -> Flag {
        Flag { hidden: true, ..self }
    }
}

/// Finds a command by name in a list of them.
pub fn find(commands: Commands, name: &str) -> Option<&'static Command> {
    commands.iter().copied().find(|command| command.name == name)
}
