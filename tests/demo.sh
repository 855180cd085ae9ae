#!/usr/bin/env bash
# The narrated tour: a MySQL 9.7 source under load, a MariaDB target and the agent, in a temporary folder. Every step is checked; the
# first check that does not hold ends the tour with what was expected and what was there, and exit code 1.
#
#   make demo            plays it and removes everything
#   make demo KEEP=1     leaves servers, load and agent running and prints commands to play with
#
# DM_AGENT_BIN names another folder with the two binaries, such as target/debug.
set -euo pipefail

CACHE=${DM_AGENT_CACHE:-$HOME/.cache/dm-agent}
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BIN=${DM_AGENT_BIN:-$REPO/target/release}
KEEP=${KEEP:-}
FOLDER=$(mktemp -d "${TMPDIR:-/tmp}/dm-agent-demo.XXXXXX")
export DM_AGENT_SOCKET=$FOLDER/agent/admin.sock
PATH=$BIN:$PATH

SOURCE=mysql-replica-01
TASK=tour
SCHEMA=shop
BIG_ROWS=150000
PIDS=()
AGENT_PID=
LOAD_PIDS=()

# ---- telling and checking ----

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
note() { printf '  %s\n' "$*"; }
good() { printf '  \033[32mok\033[0m %s\n' "$*"; }

failed() {
  printf '\n  \033[31mFAILED\033[0m %s\n' "$*" >&2
  if [ -s "$FOLDER/agent.log" ]; then
    printf '\nlast lines of the agent (%s):\n' "$FOLDER/agent.log" >&2
    tail -n 15 "$FOLDER/agent.log" >&2
  fi
  exit 1
}

# must_equal WHAT EXPECTED ACTUAL
must_equal() {
  [ "$2" = "$3" ] || failed "$1"$'\n'"    expected: $2"$'\n'"    actual:   $3"
  good "$1"
}

# must_say WHAT WORD TEXT
must_say() {
  grep -qF -- "$2" <<<"$3" || failed "$1"$'\n'"    should say: $2"$'\n'"    says:       $3"
  good "$1"
}

# wait_until SECONDS WHAT COMMAND…: polls; what the command prints last is shown when it never holds.
wait_until() {
  local limit=$1 what=$2 end=$((SECONDS + $1))
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || failed "$what: not within $limit s"
    sleep 0.1
  done
}

milliseconds() { echo $(($(date +%s%N) / 1000000)); }

# ---- servers, load, agent ----

cleanup() {
  local code=$?
  if [ "$code" = 0 ] && [ -n "$KEEP" ]; then return; fi
  local pid
  for pid in "${LOAD_PIDS[@]}" ${AGENT_PID:+"$AGENT_PID"} "${PIDS[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  if [ "$code" = 0 ]; then
    rm -rf "$FOLDER"
  else
    printf '\nlogs are in %s\n' "$FOLDER" >&2
  fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# background LOG COMMAND…: in the background, as a process group of its own; ends with this script unless it is to stay. Its process id
# is in $!.
background() {
  local log=$1
  shift
  if [ -n "$KEEP" ]; then
    setsid -- "$@" >>"$log" 2>&1 </dev/null &
  else
    setpriv --pdeathsig KILL -- setsid -- "$@" >>"$log" 2>&1 </dev/null &
  fi
}

source_sql() { "$CACHE/mysql-9.7/bin/mysql" --no-defaults -uroot -S "$FOLDER/source.sock" -NB -e "$1" 2>&1; }
target_sql() { mariadb --no-defaults -uroot -S "$FOLDER/target.sock" -NB -e "$1" 2>&1; }
source_up() { source_sql 'SELECT 1' >/dev/null; }
target_up() { target_sql 'SELECT 1' >/dev/null; }

# A port nobody listens on, outside the range of outgoing connections.
free_port() {
  local port
  for _ in $(seq 100); do
    port=$((20000 + RANDOM % 10000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
  failed "no free port"
}

start_servers() {
  local user=()
  if [ "$(id -u)" = 0 ]; then user=(--user=root); fi
  cp -a --reflink=auto "$CACHE/templates/mysql-9.7" "$FOLDER/source"
  cp -a --reflink=auto "$CACHE/templates/mariadb" "$FOLDER/target"
  SOURCE_PORT=$(free_port)
  TARGET_PORT=$(free_port)
  background "$FOLDER/source.log" "$CACHE/mysql-9.7/bin/mysqld" --no-defaults "${user[@]}" --datadir="$FOLDER/source" \
    --basedir="$CACHE/mysql-9.7/root/usr" --port="$SOURCE_PORT" --bind-address=127.0.0.1 --socket="$FOLDER/source.sock" \
    --pid-file="$FOLDER/source.pid" --mysqlx=OFF --secure-file-priv= --server-id=1 --log-bin=mysql-bin --gtid-mode=ON \
    --enforce-gtid-consistency=ON
  PIDS+=($!)
  background "$FOLDER/target.log" "$(command -v mariadbd || echo /usr/sbin/mariadbd)" --no-defaults "${user[@]}" \
    --datadir="$FOLDER/target" --port="$TARGET_PORT" --bind-address=127.0.0.1 --socket="$FOLDER/target.sock" \
    --pid-file="$FOLDER/target.pid" --server-id=2
  PIDS+=($!)
  wait_until 60 "the source answers (see $FOLDER/source.log)" source_up
  wait_until 60 "the target answers (see $FOLDER/target.log)" target_up
}

start_agent() {
  background "$FOLDER/agent.log" "$BIN/dm-agent" --config "$FOLDER/dm-agent.toml"
  AGENT_PID=$!
  wait_until 20 "the agent answers" agent_up
}

agent_up() {
  kill -0 "$AGENT_PID" 2>/dev/null || failed "the agent ended at its start"
  # Refused until what is stored is loaded.
  dm-agentctl query-status >/dev/null 2>&1
}

write_files() {
  mkdir -p "$FOLDER/agent"
  PAGES_PORT=$(free_port)
  cat >"$FOLDER/dm-agent.toml" <<TOML
name = "worker1"
worker-addr = "127.0.0.1:$PAGES_PORT"

[agent]
state-dir = "$FOLDER/agent/state"
admin-socket = "$DM_AGENT_SOCKET"
TOML
  cat >"$FOLDER/source.yaml" <<YAML
source-id: $SOURCE
enable-gtid: true
from:
  host: 127.0.0.1
  port: $SOURCE_PORT
  user: dm
  password: dmpw
YAML
  cat >"$FOLDER/task.yaml" <<YAML
name: $TASK
task-mode: incremental
target-database:
  host: 127.0.0.1
  port: $TARGET_PORT
  user: dm
  password: dmpw
mysql-instances:
- source-id: $SOURCE
  block-allow-list: only
  meta:
    binlog-name: "$(source_location file)"
    binlog-pos: $(source_location offset)
    binlog-gtid: "$(source_location gtid)"
block-allow-list:
  only:
    do-dbs: [$SCHEMA]
YAML
}

# source_location file|offset|gtid: where the source stands now.
source_location() {
  local field
  case $1 in file) field=1 ;; offset) field=2 ;; gtid) field=5 ;; esac
  # The set may be printed with line ends in it.
  source_sql 'SHOW BINARY LOG STATUS' | cut -f "$field" | sed 's/\\n//g'
}

SYSBENCH=()
start_load() {
  SYSBENCH=(sysbench oltp_write_only --db-driver=mysql --mysql-host=127.0.0.1 --mysql-port="$SOURCE_PORT" --mysql-user=dm
    --mysql-password=dmpw --mysql-db="$SCHEMA" --tables=4 --table-size=5000 --db-ps-mode=disable
    --mysql-ignore-errors=1213,1205,1020,1062)
  if [ "$1" = first ]; then
    "${SYSBENCH[@]}" prepare >"$FOLDER/sysbench.log" 2>&1 || failed "sysbench prepare: $(tail -n 5 "$FOLDER/sysbench.log")"
  fi
  background "$FOLDER/sysbench.log" "${SYSBENCH[@]}" --threads=2 --rate=150 --time=0 run
  LOAD_PIDS=($!)
  # Beside it, numbered pairs: one transaction writes a number into two tables without keys. Half a transaction, a loss and a repetition all
  # show in them.
  background "$FOLDER/pairs.log" bash -c '
    n=$2
    while echo "BEGIN; INSERT INTO pair_a VALUES ($n); INSERT INTO pair_b VALUES ($n); COMMIT;"; do
      n=$((n + 1))
      sleep 0.02
    done | "$0" --no-defaults -uroot -S "$1" --unbuffered '"$SCHEMA" \
    "$CACHE/mysql-9.7/bin/mysql" "$FOLDER/source.sock" "$(source_sql "SELECT COALESCE(MAX(n), 0) + 1 FROM $SCHEMA.pair_a")"
  LOAD_PIDS+=($!)
}

stop_load() {
  local pid
  for pid in "${LOAD_PIDS[@]}"; do
    # The whole group: the writer of pairs is a loop and a client.
    kill -TERM -- "-$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  LOAD_PIDS=()
  wait_until 10 "the load has ended" no_writers
}

no_writers() {
  [ "$(source_sql "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = '$SCHEMA'")" = 0 ]
}

# ---- what the agent and the servers say ----

# The value of a key of the one task (or source) in the agent's own status, which has a key a line; nothing where it is not known.
status_value() {
  dm-agentctl status --json | sed -n "s/^ *\"$1\": \"\\{0,1\\}\\([^\",]*\\)\"\\{0,1\\},\\{0,1\\}\$/\\1/p" | sed -n '1{/^null$/!p}'
}

# location_value received|applied|… file|offset
location_value() {
  dm-agentctl status --json | awk -v object="\"$1\":" -v key="\"$2\":" '
    $1 == object { inside = 1 }
    inside && $1 == key { gsub(/[",]/, "", $2); print $2; exit }'
}

stage_is() { grep -q "\"stage\": \"$1\"" <<<"$(dm-agentctl query-status "$TASK")"; }

# Everything the source has now is in the relay.
received_all() { received_up_to "$WANTED_FILE" "$WANTED_OFFSET"; }
received_up_to() {
  local file offset
  file=$(location_value received file)
  offset=$(location_value received offset)
  [[ "$file" > "$1" ]] || { [ "$file" = "$1" ] && [ "${offset:-0}" -ge "$2" ]; }
}
remember_source() {
  WANTED_FILE=$(source_location file)
  WANTED_OFFSET=$(source_location offset)
}

# A line a table: rows and sum of checksums; equal on both makes for equal rows.
checksums() {
  local run=$1 table
  for table in sbtest1 sbtest2 sbtest3 sbtest4; do
    printf '%s %s\n' "$table" "$("$run" "SELECT COUNT(*), COALESCE(SUM(CRC32(CONCAT_WS('#', id, k, c, pad))), 0) FROM $SCHEMA.$table")"
  done
  for table in pair_a pair_b big; do
    printf '%s %s\n' "$table" "$("$run" "SELECT COUNT(*), COALESCE(SUM(CRC32(n)), 0) FROM $SCHEMA.$table")"
  done
}

equal() { [ "$(checksums source_sql)" = "$(checksums target_sql)" ]; }

must_be_equal() {
  local end=$((SECONDS + 60))
  until equal; do
    if [ "$SECONDS" -ge "$end" ]; then
      failed "the tables differ, table, rows, checksum:"$'\n'"$(diff <(checksums source_sql) <(checksums target_sql) | sed 's/^</    source/; s/^>/    target/')"
    fi
    sleep 0.3
  done
  must_equal "nothing was applied twice: no pair is in the target more than once" 0 \
    "$(target_sql "SELECT COUNT(*) - COUNT(DISTINCT n) FROM $SCHEMA.pair_a")"
  good "equal checksums of all seven tables"
}

# must_stand_still SECONDS: the target does not change by one row while the source does.
must_stand_still() {
  local before source_before
  before=$(checksums target_sql)
  source_before=$(checksums source_sql)
  sleep "$1"
  [ "$(checksums source_sql)" != "$source_before" ] || failed "the load stands still, so this proves nothing"
  must_equal "the target stands still while the source writes" "$before" "$(checksums target_sql)"
}

target_has_rows() { [ "$(target_sql "SELECT COUNT(*) FROM $SCHEMA.pair_a" 2>/dev/null)" -gt 20 ] 2>/dev/null; }

pause() {
  local answer
  answer=$(dm-agentctl pause-task "$TASK" | tr -d ' \n')
  must_equal "pause-task answers as DM does" \
    "{\"op\":\"Pause\",\"result\":true,\"msg\":\"\",\"sources\":[{\"result\":true,\"msg\":\"\",\"source\":\"$SOURCE\",\"worker\":\"worker1\"}]}" \
    "$answer"
  wait_until 10 "stage Paused" stage_is Paused
}

show_progress() {
  local left rows eta
  for _ in $(seq 120); do
    rows=$(status_value rows_per_second)
    left=$(status_value backlog_bytes)
    eta=$(status_value eta_ms)
    printf '  %10.0f rows/s  %12s bytes left  %s\n' "${rows:-0}" "${left:-unknown}" \
      "${eta:+ready in about $(((${eta:-0} + 999) / 1000)) s}"
    [ "${left:-1}" != 0 ] || return 0
    sleep 1
  done
  failed "not caught up within two minutes"
}

# ---- the tour ----

tour_1_follow() {
  step "1. A source, a task, and a target that follows"
  dm-agentctl operate-source create "$FOLDER/source.yaml" >"$FOLDER/answer" || failed "operate-source: $(cat "$FOLDER/answer")"
  must_say "operate-source create source.yaml" '"result": true' "$(cat "$FOLDER/answer")"
  dm-agentctl start-task "$FOLDER/task.yaml" >"$FOLDER/answer" || failed "start-task: $(cat "$FOLDER/answer")"
  must_say "start-task task.yaml" '"checkResult"' "$(cat "$FOLDER/answer")"
  source_sql "CREATE DATABASE $SCHEMA; USE $SCHEMA; CREATE TABLE pair_a (n INT); CREATE TABLE pair_b (n INT);
    CREATE TABLE big (n INT PRIMARY KEY, v VARCHAR(100))"
  start_load first
  note "sysbench writes to four tables from now on, and a second writer adds numbered pairs"
  wait_until 30 "the target follows" target_has_rows
  good "the target follows: tables and rows are there"
}

tour_2_pause() {
  step "2. pause-task: parked at a transaction's end"
  pause
  must_equal "no half transaction: both tables of pairs end with the same number" "$(target_sql "SELECT COUNT(*), MAX(n) FROM $SCHEMA.pair_a")" \
    "$(target_sql "SELECT COUNT(*), MAX(n) FROM $SCHEMA.pair_b")"
  must_stand_still 1
  dm-agentctl resume-task "$TASK" >/dev/null
  wait_until 10 "stage Running" stage_is Running

  note "once more, inside a transaction of $BIG_ROWS rows"
  source_sql "SET SESSION cte_max_recursion_depth = $BIG_ROWS; INSERT INTO $SCHEMA.big
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $BIG_ROWS)
    SELECT n, REPEAT('x', 90) FROM numbers"
  remember_source
  wait_until 30 "the relay has it" received_all
  local began took
  began=$(milliseconds)
  pause
  took=$(($(milliseconds) - began))
  # 2.2 s are the agent's; the commands and the polling of this script come on top.
  [ "$took" -le 2900 ] || failed "it took $took ms until Paused"
  good "Paused after $took ms, with $(target_sql "SELECT COUNT(*) FROM $SCHEMA.big") of the $BIG_ROWS rows applied"
  must_stand_still 1
}

tour_3_parked() {
  step "3. While parked: receiving goes on, the name and the relay stay taken"
  remember_source
  wait_until 30 "the relay goes on receiving" received_all
  good "the relay has what the source has written meanwhile"
  local status
  status=$(dm-agentctl query-status "$TASK")
  must_say "query-status says Paused" '"stage": "Paused"' "$status"
  must_equal "and why: operator" operator "$(status_value reason)"
  note "received up to $(location_value received file):$(location_value received offset), applied up to $(location_value applied file):$(location_value applied offset)"
  dm-agentctl status | sed 's/^/    /'
  must_say "start-task of that name again is refused" 'already exist' "$(dm-agentctl start-task "$FOLDER/task.yaml" 2>&1 || true)"

  source_sql 'FLUSH BINARY LOGS'
  remember_source
  wait_until 30 "the relay has the new file" received_all
  must_say "purge-relay of what it needs is refused" 'relay log purge is forbidden' \
    "$(dm-agentctl purge-relay -s "$SOURCE" --filename "$WANTED_FILE" 2>&1 || true)"
  source_sql "PURGE BINARY LOGS TO '$WANTED_FILE'"
  must_equal "the source has purged everything before" "$WANTED_FILE" "$(source_sql 'SHOW BINARY LOGS' | head -n 1 | cut -f 1)"
}

tour_4_kill() {
  step "4. kill -9 of the agent"
  local since before
  since=$(status_value since_ms)
  before=$(checksums target_sql)
  kill -KILL "$AGENT_PID"
  wait "$AGENT_PID" 2>/dev/null || true
  start_agent
  must_say "started again: still Paused" '"stage": "Paused"' "$(dm-agentctl query-status "$TASK")"
  must_equal "with the same reason" operator "$(status_value reason)"
  must_equal "since the same time" "$since" "$(status_value since_ms)"
  remember_source
  wait_until 30 "the relay goes on" received_all
  good "the relay goes on receiving"
  must_equal "and the target has not moved" "$before" "$(checksums target_sql)"
}

tour_5_resume() {
  step "5. resume-task: catching up"
  dm-agentctl resume-task "$TASK" >/dev/null
  sleep 2
  stop_load
  note "the load has stopped, so that the two sides can be compared"
  show_progress
  must_be_equal
}

tour_6_stop() {
  step "6. stop-task, and start-task again"
  dm-agentctl stop-task "$TASK" >/dev/null
  must_say "its status is gone" 'not exist' "$(dm-agentctl query-status "$TASK" 2>&1 || true)"
  local rows
  rows=$(target_sql "SELECT COUNT(*) FROM dm_meta.${TASK}_syncer_checkpoint WHERE is_global = 1")
  must_equal "its checkpoint in dm_meta stays" 1 "$rows"
  start_load again
  sleep 2
  stop_load
  local missing
  missing=$(($(source_sql "SELECT COUNT(*) FROM $SCHEMA.pair_a") - $(target_sql "SELECT COUNT(*) FROM $SCHEMA.pair_a")))
  [ "$missing" -gt 0 ] || failed "nothing was written while the task was stopped, so this proves nothing"
  note "without the task the source has got $missing pairs that the target does not have, beside sysbench's changes"
  dm-agentctl start-task "$FOLDER/task.yaml" >"$FOLDER/answer" || failed "start-task: $(cat "$FOLDER/answer")"
  good "start-task: it goes on from its checkpoint, not from the start that its file names"
  show_progress
  must_be_equal
}

say_what_to_play_with() {
  start_load again
  cat >"$FOLDER/stop.sh" <<STOP
#!/usr/bin/env bash
# Ends the demo that was left running.
for pid in ${LOAD_PIDS[*]} $AGENT_PID ${PIDS[*]}; do
  kill -TERM -- "-\$pid" 2>/dev/null
  while kill -0 "\$pid" 2>/dev/null; do sleep 0.2; done
done
rm -rf "$FOLDER"
STOP
  chmod 755 "$FOLDER/stop.sh"
  step "Left running, with load. To play with it:"
  cat <<TEXT
    export DM_AGENT_SOCKET=$DM_AGENT_SOCKET PATH=$BIN:\$PATH
    dm-agentctl status --watch
    dm-agentctl pause-task $TASK
    dm-agentctl query-status $TASK
    dm-agentctl resume-task $TASK
    dm-agentctl events --follow
    curl http://127.0.0.1:$PAGES_PORT/metrics
    $CACHE/mysql-9.7/bin/mysql --no-defaults -uroot -S $FOLDER/source.sock $SCHEMA
    mariadb --no-defaults -uroot -S $FOLDER/target.sock $SCHEMA
    tail -f $FOLDER/agent.log
  and to end it:
    $FOLDER/stop.sh
TEXT
}

main() {
  local began=$SECONDS
  for program in dm-agent dm-agentctl; do
    [ -x "$BIN/$program" ] || failed "$BIN/$program is missing: make build"
  done
  step "A MySQL 9.7 source, a MariaDB target and dm-agent in $FOLDER"
  start_servers
  write_files
  start_agent
  good "running: source on port $SOURCE_PORT, target on port $TARGET_PORT, agent with pid $AGENT_PID"
  tour_1_follow
  tour_2_pause
  tour_3_parked
  tour_4_kill
  tour_5_resume
  tour_6_stop
  step "Every check held ($((SECONDS - began)) s)."
  if [ -n "$KEEP" ]; then say_what_to_play_with; fi
}

main "$@"
