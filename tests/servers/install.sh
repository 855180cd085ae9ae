#!/usr/bin/env bash
# Gets the real servers that tests, demo and benchmarks run against onto a bare Debian 12.
#
#   install.sh            install what is missing; a second run is a quick no-op
#   install.sh --dry-run  say what would be done, change nothing
#   install.sh --clean    remove the cache folder (installed packages stay)
#
# MariaDB, etcd and sysbench come from the machine's own suite by apt. MySQL 9.7 comes from Debian's unstable suite, unpacked
# into the cache folder together with the libc it needs, so that nothing of the system changes. Then one initialised data
# directory of each server is made, which a test copies instead of initialising its own.
#
# The cache is ${DM_AGENT_CACHE:-$HOME/.cache/dm-agent}:
#   mysql-9.7/bin/{mysqld,mysql,mysqladmin,mysqlbinlog}   programs, started through the bundled dynamic linker
#   templates/{mysql-9.7,mariadb}/                        data directories to copy (users: root without password, dm/dmpw)
#
# Invariant: a folder with its final name is complete. Everything is made under a .partial name and then renamed, under a lock,
# so that several runs at once and a run that was killed are both harmless.
set -euo pipefail

CACHE=${DM_AGENT_CACHE:-${HOME:?HOME or DM_AGENT_CACHE must be set}/.cache/dm-agent}
# Part of each stamp: raise it when the layout of the cache changes.
LAYOUT=1
MYSQL_ROOT=$CACHE/mysql-9.7
TEMPLATES=$CACHE/templates
DRY_RUN=no

say() { printf 'servers: %s\n' "$*"; }
die() {
  printf 'servers: %s\n' "$*" >&2
  exit 1
}

# Runs a command as root: directly, or through sudo without asking for a password on a machine without a terminal.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    if [ -t 0 ]; then sudo "$@"; else sudo -n "$@"; fi
  else
    die "root is needed for: $* (no sudo here; run it as root once, then again this script)"
  fi
}

# The options a server needs to run for this user: it refuses root unless told so.
server_user() {
  if [ "$(id -u)" = 0 ]; then echo --user=root; fi
}

has_program() {
  command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]
}

missing_packages() {
  local pair
  for pair in mariadb-server:mariadbd mariadb-client:mariadb sysbench:sysbench etcd-server:etcd etcd-client:etcdctl \
    mydumper:mydumper; do
    has_program "${pair#*:}" || printf '%s\n' "${pair%%:*}"
  done
}

install_packages() {
  local missing
  mapfile -t missing < <(missing_packages)
  if [ "${#missing[@]}" = 0 ]; then
    return
  fi
  say "apt-get install ${missing[*]}"
  if [ "$DRY_RUN" = yes ]; then return; fi
  as_root apt-get update -q
  # No service must be started by the installation, not even where systemd runs: each test runs servers of its own.
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}"
  mapfile -t missing < <(missing_packages)
  if [ "${#missing[@]}" != 0 ]; then
    die "still missing after the installation: ${missing[*]}"
  fi
}

# The archive's address as this machine's apt knows it (a mirror inside a company stays in use).
archive_uri() {
  local uri
  uri=$(
    shopt -s nullglob
    for file in /etc/apt/sources.list.d/*.sources; do
      sed -n 's/^[Uu][Rr][Ii]s:[[:space:]]*//p' "$file" | tr -s ' \t' '\n'
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
      [ -e "$file" ] && sed -nE 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+).*/\2/p' "$file"
    done
    true
  )
  # The main archive's path ends in /debian nearly everywhere; else the first address is the best guess.
  local best
  best=$(grep -E '/debian/?$' <<<"$uri" | head -n 1 || true)
  [ -n "$best" ] || best=$(grep -v security <<<"$uri" | head -n 1 || true)
  [ -n "$best" ] || die "no archive address found in /etc/apt/sources.list*"
  printf '%s\n' "$best"
}

# Downloads MySQL and every library it needs, libc included, with an apt state of its own.
download_mysql() {
  local work=$1 uri=$2
  mkdir -p "$work"/{lists/partial,cache/archives/partial,etc,none}
  : >"$work/status"
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s sid main\n' "$uri" >"$work/etc/sources.list"
  local options=(
    -o "Dir::Etc::sourcelist=$work/etc/sources.list" -o "Dir::Etc::sourceparts=$work/none"
    -o "Dir::Etc::preferences=$work/none/preferences" -o "Dir::Etc::preferencesparts=$work/none"
    -o "Dir::State=$work" -o "Dir::State::Lists=$work/lists" -o "Dir::State::status=$work/status"
    -o "Dir::Cache=$work/cache" -o "Dir::Cache::archives=$work/cache/archives"
    -o "Debug::NoLocking=1" -o "APT::Sandbox::User=" -o "Acquire::Languages=none" -o "Acquire::Retries=3"
    -o "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"
    # A mirror that stands still (a frozen one, a snapshot) is as good here: the signature counts, not its age.
    -o "Acquire::Check-Valid-Until=false"
  )
  apt-get -q "${options[@]}" update
  apt-get -q -y "${options[@]}" install --no-install-recommends --download-only mysql-server-core mysql-client-core
}

# A program of the unpacked folder can only be started through its own dynamic linker, so each gets a wrapper.
write_wrapper() {
  local root=$1 name=$2 folder=$3
  cat >"$root/bin/$name" <<WRAPPER
#!/bin/sh
# Starts $name with the libraries beside it (exec: the process id stays the caller's child).
here=\$(dirname "\$(readlink -f "\$0")")
root=\$(dirname "\$here")/root
exec "\$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "\$root/usr/lib/x86_64-linux-gnu" "\$root/usr/$folder/$name" "\$@"
WRAPPER
  chmod 755 "$root/bin/$name"
}

install_mysql() {
  if [ -e "$MYSQL_ROOT/.complete-$LAYOUT" ]; then return; fi
  [ "$(dpkg --print-architecture)" = amd64 ] || die "MySQL 9.7 is unpacked for amd64 only"
  local uri
  uri=$(archive_uri)
  say "MySQL 9.7: download from $uri (sid, about 65 MB) into $MYSQL_ROOT"
  if [ "$DRY_RUN" = yes ]; then return; fi
  local partial=$CACHE/mysql-9.7.partial
  rm -rf "$partial" "$MYSQL_ROOT"
  mkdir -p "$partial/bin" "$partial/root/usr"/{bin,sbin,lib,lib64}
  download_mysql "$partial/apt" "$uri"
  # Debian's libraries are installed below /usr, reached through these links.
  for folder in bin sbin lib lib64; do ln -s "usr/$folder" "$partial/root/$folder"; done
  local package
  for package in "$partial"/apt/cache/archives/*.deb; do dpkg -x "$package" "$partial/root"; done
  rm -rf "$partial/apt"
  write_wrapper "$partial" mysqld sbin
  for name in mysql mysqladmin mysqlbinlog; do write_wrapper "$partial" "$name" bin; done
  "$partial/bin/mysqld" --no-defaults --version >"$partial/.complete-$LAYOUT"
  mv "$partial" "$MYSQL_ROOT"
  say "MySQL: $(cat "$MYSQL_ROOT/.complete-$LAYOUT")"
}

# The users every test server has. `%` beside localhost, because servers run without name resolution.
seed_users() {
  cat <<'SQL'
CREATE USER 'root'@'%' IDENTIFIED BY '';
GRANT ALL PRIVILEGES ON *.* TO 'root'@'%' WITH GRANT OPTION;
CREATE USER 'dm'@'%' IDENTIFIED BY 'dmpw';
GRANT ALL PRIVILEGES ON *.* TO 'dm'@'%';
SQL
}

# Starts a server on the data directory once and stops it cleanly: the first start is the slow one. `$1` is a folder for socket and
# log, the rest the command.
start_and_stop() {
  local run=$1
  shift
  "$@" --skip-networking --socket="$run/s.sock" --pid-file="$run/s.pid" --log-error="$run/first-start.log" \
    >"$run/first-start.out" 2>&1 &
  local pid=$! tries=0
  until mariadb-admin --no-defaults --socket="$run/s.sock" --user=root ping >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 600 ] || ! kill -0 "$pid" 2>/dev/null; then
      cat "$run/first-start.log" >&2 || true
      die "the first start on a new data directory failed"
    fi
    sleep 0.1
  done
  kill -TERM "$pid"
  wait "$pid" || die "the first stop of a new data directory failed: $(tail -n 5 "$run/first-start.log")"
}

# A stamp that changes with the server's version: a template made by another version is made anew.
template_is_current() {
  [ -e "$TEMPLATES/$1/.stamp" ] && [ "$(cat "$TEMPLATES/$1/.stamp")" = "$LAYOUT $2" ]
}

finish_template() {
  local name=$1 version=$2 partial=$3
  # A copy must not share the server's identity with other copies.
  rm -f "$partial/data/auto.cnf" "$partial"/data/*binlog.* "$partial"/data/*.pid
  printf '%s %s\n' "$LAYOUT" "$version" >"$partial/data/.stamp"
  rm -rf "${TEMPLATES:?}/$name"
  mv "$partial/data" "$TEMPLATES/$name"
  rm -rf "$partial"
  say "template of $name: $(du -sh "$TEMPLATES/$name" | cut -f1)"
}

mysql_template() {
  local version=$1 partial=$TEMPLATES/mysql-9.7.partial
  if template_is_current mysql-9.7 "$version"; then return; fi
  say "MySQL: initialise a data directory"
  if [ "$DRY_RUN" = yes ]; then return; fi
  rm -rf "$partial"
  mkdir -p "$partial"
  # --init-file wants one statement a line.
  seed_users >"$partial/users.sql"
  local base=("$MYSQL_ROOT/bin/mysqld" --no-defaults --basedir="$MYSQL_ROOT/root/usr" --datadir="$partial/data" --secure-file-priv=)
  local user
  user=$(server_user)
  "${base[@]}" ${user:+"$user"} --initialize-insecure --init-file="$partial/users.sql" --innodb-redo-log-capacity=64M \
    --log-error="$partial/initialize.log" || die "initialise MySQL: $(tail -n 20 "$partial/initialize.log")"
  start_and_stop "$partial" "${base[@]}" ${user:+"$user"} --mysqlx=OFF --skip-log-bin --innodb-redo-log-capacity=64M
  finish_template mysql-9.7 "$version" "$partial"
}

mariadb_template() {
  local version=$1 partial=$TEMPLATES/mariadb.partial
  if template_is_current mariadb "$version"; then return; fi
  say "MariaDB: initialise a data directory"
  if [ "$DRY_RUN" = yes ]; then return; fi
  rm -rf "$partial"
  mkdir -p "$partial"
  local user
  user=$(server_user)
  mariadb-install-db --no-defaults ${user:+"$user"} --auth-root-authentication-method=normal --skip-test-db \
    --datadir="$partial/data" >"$partial/initialize.log" 2>&1 ||
    die "initialise MariaDB: $(tail -n 20 "$partial/initialize.log")"
  local base=("$(mariadbd_path)" --no-defaults --datadir="$partial/data")
  # Bootstrap mode starts without grants: they are loaded first.
  { echo 'FLUSH PRIVILEGES;' && seed_users; } |
    "${base[@]}" ${user:+"$user"} --bootstrap >"$partial/users.log" 2>&1 ||
    die "create users in MariaDB: $(tail -n 20 "$partial/users.log")"
  start_and_stop "$partial" "${base[@]}" ${user:+"$user"}
  finish_template mariadb "$version" "$partial"
}

mariadbd_path() {
  command -v mariadbd || echo /usr/sbin/mariadbd
}

main() {
  case "${1:-}" in
  '') ;;
  --dry-run) DRY_RUN=yes ;;
  --clean)
    say "remove $CACHE"
    rm -rf "$CACHE"
    return
    ;;
  *) die "unknown argument: $1 (known: --dry-run, --clean)" ;;
  esac
  command -v apt-get >/dev/null || die "apt-get is missing: this script knows Debian 12 only"
  mkdir -p "$TEMPLATES"
  # The lock goes with the descriptor, so a killed run frees it. Servers started below must not inherit it (9>&-).
  exec 9>"$CACHE/.lock"
  flock -n 9 || {
    say "another run is at work, waiting for it"
    flock 9
  }
  local began=$SECONDS
  install_packages 9>&-
  install_mysql 9>&-
  local mysql_version mariadb_version
  mysql_version=$(cat "$MYSQL_ROOT/.complete-$LAYOUT" 2>/dev/null || echo none)
  mariadb_version=$("$(mariadbd_path)" --no-defaults --version 2>/dev/null || echo none)
  mysql_template "$mysql_version" 9>&-
  mariadb_template "$mariadb_version" 9>&-
  say "ready in $CACHE ($((SECONDS - began)) s)"
}

main "$@"
