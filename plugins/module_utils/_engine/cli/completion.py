# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Shell completion: scripts for bash and zsh, made from the options.

Verbs, options and choices stand in the script, so they cost no process. Set ids and database names come from the
hidden `pgops _complete sets|databases` (completing.py), which reads the catalog and says nothing when it cannot.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from .options import VERBS, build
from .parser import Parser

_SET_WORDS = {
    "sync": ("latest", "latest_verified", "all"),
    "verify": ("latest", "all", "unverified"),
    "restore": ("latest_verified", "latest"),
    "recover": ("auto",),
    "rescue": ("auto",),
    "pin": ("latest_verified", "latest"),
}


def script(shell: str) -> str:
    """Return the completion script for `shell` (bash or zsh)."""
    return _bash(build()) if shell == "bash" else _zsh(build())


# --- what the options tell --------------------------------------------------------------------------------------------


def _flags(parser: Parser) -> list[str]:
    return [flag for action in parser.arguments() if action.help != argparse.SUPPRESS for flag in action.option_strings]


def _values(parser: Parser, action: argparse.Action) -> str:
    """Return how the values of `action` are completed: `file`, `sets`, `databases`, words, or nothing."""
    if action.choices is not None:
        return "words:" + " ".join(str(choice) for choice in action.choices)
    return parser.completes.get(action.dest, "none")


def _takes_value(action: argparse.Action) -> bool:
    return bool(action.option_strings) and action.nargs != 0


def _positional(name: str, parser: Parser) -> str:
    for action in parser.arguments():
        if not action.option_strings:
            kind = _values(parser, action)
            return "%s %s" % (kind, " ".join(_SET_WORDS.get(name, ()))) if kind == "sets" else kind
    return "none"


# --- bash -------------------------------------------------------------------------------------------------------------

_BASH = r"""# bash completion of pgops; write it to /etc/bash_completion.d/pgops, or: source <(pgops completion bash)

_pgops_add() {
    # Offer each line of $2 that begins with what has been typed, quoted as the shell needs it.
    local line quoted
    while IFS= read -r line; do
        [[ -n $line ]] || continue
        printf -v quoted '%%q' "$line"
        if [[ $line == "$1"* || $quoted == "$1"* ]]; then COMPREPLY+=("$quoted"); fi
    done <<< "$2"
}

_pgops_offer() {
    # $1: what has been typed; $2: how it is completed; further: words that stand beside what the places hold
    local cur=$1 kind=$2 program=${COMP_WORDS[0]} args=() i
    shift 2
    case $kind in
        file)
            compopt -o filenames 2> /dev/null
            _pgops_add_files "$cur"
            ;;
        words:*) COMPREPLY+=($(compgen -W "${kind#words:}" -- "$cur")) ;;
        sets | databases)
            # The configuration and the place that this very command line names.
            for ((i = 1; i < COMP_CWORD; i++)); do
                case ${COMP_WORDS[i]} in
                    -c | --config | --place)
                        local value=${COMP_WORDS[i + 1]}
                        [[ $value == = ]] && value=${COMP_WORDS[i + 2]}
                        args+=("${COMP_WORDS[i]}" "$value")
                        ;;
                esac
            done
            _pgops_add "$cur" "$(
                printf '%%s\n' "$@"
                "${program/#\~/$HOME}" _complete "$kind" "${args[@]}" 2> /dev/null
            )"
            ;;
    esac
}

_pgops_add_files() {
    local line
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$1")
}

_pgops() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' i word
    COMPREPLY=()
    # bash makes a word of its own of the sign in --option=value.
    if [[ $cur == = ]]; then
        cur=''
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
            %(global_valued)s) ((i++)); [[ ${COMP_WORDS[i]} == = ]] && ((i++)) ;;
            -* | =) ;;
            *) verb=$word; break ;;
        esac
    done
    [[ $verb == list ]] && verb=info
    case $verb:$prev in
%(values)s
    esac
    if [[ $cur == -* ]]; then
        case $verb in
%(flags)s
        esac
        return
    fi
    case $verb in
%(positionals)s
    esac
}

complete -F _pgops pgops
"""


def _bash(parser: Parser) -> str:
    values, flags, positionals = [], [], []
    for name, sub in [("", parser), *parser.verbs.items()]:
        for action in sub.arguments():
            if _takes_value(action):
                pattern = " | ".join("%s:%s" % (name or "''", flag) for flag in action.option_strings)
                values.append("        %s) _pgops_offer \"$cur\" '%s'; return ;;" % (pattern, _values(sub, action)))
        pattern = name or "''"
        flags.append("            %s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")) ;;" % (pattern, " ".join(_flags(sub))))
        kind, _unused, words = _positional(name, sub).partition(" ")
        offered = "words:%s" % " ".join(n for n, *_unused in VERBS) if not name else kind
        if offered.startswith("words:") and name:
            offered, words = _positional(name, sub), ""
        positionals.append("        %s) _pgops_offer \"$cur\" '%s' %s ;;" % (pattern, offered, words))
    valued = [flag for action in parser.arguments() if _takes_value(action) for flag in action.option_strings]
    parts = {"values": "\n".join(values), "flags": "\n".join(flags), "positionals": "\n".join(positionals)}
    return _BASH % {**parts, "global_valued": " | ".join(valued)}


# --- zsh --------------------------------------------------------------------------------------------------------------

_ZSH = r"""#compdef pgops
# zsh completion of pgops; write it as _pgops to a directory of $fpath

_pgops_known() {
    # What the places hold; the configuration and the place are those of this very command line.
    local -a args found
    local i
    for ((i = 1; i < $#pgops_words; i++)); do
        case $pgops_words[i] in
            -c|--config|--place) args+=("$pgops_words[i]" "$pgops_words[i+1]") ;;
        esac
    done
    found=(${(f)"$(_call_program pgops-$1 ${(q)pgops_words[1]} _complete $1 ${(q)args} 2>/dev/null)"})
    compadd "${@:2}" -a found
}

_pgops_sets() { _pgops_known sets "$@" }
_pgops_databases() { _pgops_known databases "$@" }

_pgops() {
    local curcontext="$curcontext" state line ret=1
    local -a pgops_words=("${words[@]}")
    typeset -A opt_args
    _arguments -S -C \
%(globals)s
        '1:verb:((%(verbs)s))' \
        '*:: :->rest' && ret=0
    [[ $state == rest ]] || return ret
    curcontext="${curcontext%%:*:*}:pgops-$line[1]:"
    case $line[1] in
%(cases)s
    esac
    return ret
}

if [[ $funcstack[1] == _pgops ]]; then
    _pgops "$@"
else
    compdef _pgops pgops
fi
"""


def _zsh(parser: Parser) -> str:
    summaries = {name: summary for name, summary, *_unused in VERBS}
    verbs = " ".join('%s\\:"%s"' % (name, _zsh_text(text)) for name, text in summaries.items())
    cases = []
    for name, sub in parser.verbs.items():
        pattern = "info|list" if name == "info" else name
        specs = " \\\n".join([*_zsh_options(sub, "            "), *_zsh_positional(name, sub)])
        cases.append("        %s)\n            _arguments -S \\\n%s && ret=0\n            ;;" % (pattern, specs))
    top = " \\\n".join(_zsh_options(parser, "        ")) + " \\"
    return _ZSH % {"globals": top, "verbs": verbs, "cases": "\n".join(cases)}


def _zsh_text(text: str) -> str:
    """Return `text` as a description inside a single-quoted specification."""
    for character in "\\:[]":
        text = text.replace(character, "\\" + character)
    return text.replace("'", "'\\''").replace('"', "").replace("%%", "%")


def _zsh_options(parser: Parser, pad: str) -> Iterator[str]:
    for action in parser.arguments():
        if not action.option_strings or action.help == argparse.SUPPRESS:
            continue
        value = ""
        if _takes_value(action):
            count = action.nargs if isinstance(action.nargs, int) else 1
            names = action.metavar if isinstance(action.metavar, tuple) else (action.metavar or action.dest,) * count
            value = "".join(":%s:%s" % (_zsh_text(str(n)), _zsh_action(_values(parser, action))) for n in names)
        many = "*" if type(action).__name__ == "_AppendAction" else ""
        for flag in action.option_strings:
            excluded = "" if many else "(%s)" % " ".join(action.option_strings)
            yield "%s'%s%s%s[%s]%s'" % (pad, excluded, many, flag, _zsh_text(action.help or ""), value)


def _zsh_positional(name: str, parser: Parser) -> Iterator[str]:
    for action in parser.arguments():
        if not action.option_strings:
            many = "*" if action.nargs == "*" else "1"
            kind = _values(parser, action)
            offered = _zsh_action(kind)
            if kind == "sets" and name in _SET_WORDS:
                offered = "{ compadd %s; _pgops_sets }" % " ".join(_SET_WORDS[name])
            yield "            '%s:%s:%s'" % (many, _zsh_text(str(action.metavar or action.dest)), offered)


def _zsh_action(kind: str) -> str:
    if kind.startswith("words:"):
        return "(%s)" % kind[len("words:") :]
    return {"file": "_files", "sets": "_pgops_sets", "databases": "_pgops_databases"}.get(kind, " ")


__all__ = ("script",)
