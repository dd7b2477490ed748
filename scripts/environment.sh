# Sourced by the scripts beside it, from the project's root: makes virtual environments from locked requirements.
# shellcheck shell=bash

say() { printf '== %s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# make_environment FOLDER LOCK: a virtual environment with what the lock says, and nothing to do when it has it already.
# PYTHON names the interpreter (default python3).
make_environment() {
    local folder="$1" lock="$2" python="${PYTHON:-python3}" installed stamp
    command -v "$python" >/dev/null || fail "no $python on PATH: install Python 3.11 or later, or set PYTHON to it"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$python" --version 2>&1) is too old: Backline needs Python 3.11 or later; set PYTHON to one"
    stamp="$("$python" -c 'import hashlib, sys; print(sys.version, hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$lock")"
    installed="$folder/.installed-$(basename "$lock" .txt)"
    if [[ "$(cat "$installed" 2>/dev/null)" == "$stamp" ]]; then
        return
    fi
    if [[ ! -x "$folder/bin/python" ]]; then
        say "making $folder with $("$python" --version 2>&1)"
        "$python" -m venv "$folder" || fail "cannot make $folder: on Debian and Ubuntu, install python3-venv"
    fi
    say "installing $lock into $folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --requirement "$lock"
    printf '%s\n' "$stamp" >"$installed"
}

# install_project FOLDER: the project itself, editable, beside what the lock has brought.
install_project() {
    local folder="$1"
    if [[ -x "$folder/bin/backline" && "$folder/.project" -nt pyproject.toml ]]; then
        return
    fi
    say "installing backline into $folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --editable .
    touch "$folder/.project"
}

# make_track NAME: .venv-NAME with what requirements/track-NAME.txt says and the project, nothing else. Needs .venv.
make_track() {
    local name="$1" folder=".venv-$1" lock="requirements/track-$1.txt" stamp
    [[ -f "$lock" ]] || fail "there is no track $name; the tracks are current and $(cd requirements && ls track-*.txt | sed 's/track-//; s/\.txt//' | xargs)"
    stamp="$(.venv/bin/python -c 'import hashlib, sys; print(sys.version, hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$lock")"
    if [[ "$(cat "$folder/.installed" 2>/dev/null)" == "$stamp" && "$folder/.project" -nt pyproject.toml ]]; then
        return
    fi
    say "making $folder"
    .venv/bin/uv venv --quiet --clear --python .venv/bin/python "$folder"
    .venv/bin/uv pip install --quiet --compile-bytecode --python "$folder/bin/python" --require-hashes --no-deps \
        --requirement "$lock"
    .venv/bin/uv pip install --quiet --python "$folder/bin/python" --no-deps --editable .
    printf '%s\n' "$stamp" >"$folder/.installed"
    touch "$folder/.project"
}
