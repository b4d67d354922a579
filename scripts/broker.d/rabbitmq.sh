# What only RabbitMQ is: settings, process, commands. Read by scripts/broker, whose drawing says who calls what.
# shellcheck shell=bash

readonly RABBITMQ_IMAGE=${LONGSHORE_BROKER_IMAGE:-rabbitmq:4-management}
readonly RABBITMQ_BIN=/usr/lib/rabbitmq/bin

amqps_port() { echo $((port + 1)); }
management_port() { echo $((port + 2)); }
dist_port() { echo $((port + 3)); }
epmd_port() { echo $((port + 4)); }

rabbitmq_install() {
    if [[ -x $RABBITMQ_BIN/rabbitmq-server ]]; then return; fi
    install_packages "$RABBITMQ_BIN/rabbitmq-server" rabbitmq-server
}

rabbitmq_prepare() {
    case $engine in
    debian) write_conf 127.0.0.1 "$port" "$(amqps_port)" "$(management_port)" "$folder/tls" ;;
    docker) write_conf 0.0.0.0 5672 5671 15672 /tls && write_rabbitmq_compose ;;
    esac
}

# The node's settings, for both engines. $1: where it listens; $2: AMQP port; $3: AMQPS port; $4: management; $5: TLS files
write_conf() {
    local address=$1 tls_folder=$5
    {
        echo "listeners.tcp.1 = $address:$2"
        echo "loopback_users = none"
        if [[ $engine == debian ]]; then echo "log.console = false"; fi
        if ((management)); then
            echo "management.tcp.ip = $address"
            echo "management.tcp.port = $4"
        fi
        if ((tls)); then
            echo "listeners.ssl.1 = $address:$3"
            echo "ssl_options.cacertfile = $tls_folder/ca.pem"
            echo "ssl_options.certfile = $tls_folder/server.pem"
            echo "ssl_options.keyfile = $tls_folder/server.key"
            # A certificate is asked for, and looked at if there is one: password and EXTERNAL on the same port.
            echo "ssl_options.verify = verify_peer"
            echo "ssl_options.fail_if_no_peer_cert = false"
            echo "ssl_cert_login_from = common_name"
            echo "auth_mechanisms.1 = PLAIN"
            echo "auth_mechanisms.2 = AMQPLAIN"
            echo "auth_mechanisms.3 = EXTERNAL"
        fi
    } >"$folder/rabbitmq.conf"
    local plugins=()
    if ((management)); then plugins+=(rabbitmq_management); fi
    if ((tls)); then plugins+=(rabbitmq_auth_mechanism_ssl); fi
    (IFS=, && echo "[${plugins[*]}].") >"$folder/enabled_plugins"
}

write_rabbitmq_compose() {
    {
        echo "services:"
        echo "  node1:"
        echo "    image: $RABBITMQ_IMAGE"
        echo "    hostname: $name" # the data belong to a node of this name
        echo "    ports:"
        echo "      - 127.0.0.1:$port:5672"
        if ((tls)); then echo "      - 127.0.0.1:$(amqps_port):5671"; fi
        if ((management)); then echo "      - 127.0.0.1:$(management_port):15672"; fi
        echo "    volumes:"
        echo "      - $folder/rabbitmq.conf:/etc/rabbitmq/rabbitmq.conf:ro"
        echo "      - $folder/enabled_plugins:/etc/rabbitmq/enabled_plugins:ro"
        if ((tls)); then echo "      - $folder/tls:/tls:ro"; fi
    } >"$folder/compose.yml"
}

# Every command on a Debian node runs with exactly this, and with nothing of /etc/rabbitmq.
debian() {
    env -u NOTIFY_SOCKET -u RABBITMQ_USE_LONGNAME \
        HOME="$folder" \
        LONGSHORE_BROKER="$folder" \
        ERL_EPMD_PORT="$(epmd_port)" \
        ERL_EPMD_ADDRESS=127.0.0.1 \
        ERL_CRASH_DUMP=/dev/null \
        RABBITMQ_CONF_ENV_FILE=/dev/null \
        RABBITMQ_CONFIG_FILE="$folder/rabbitmq.conf" \
        RABBITMQ_CONFIG_FILES="$folder/none" \
        RABBITMQ_ADVANCED_CONFIG_FILE="$folder/none.config" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$folder/enabled_plugins" \
        RABBITMQ_NODENAME="$name-$port@localhost" \
        RABBITMQ_DIST_PORT="$(dist_port)" \
        RABBITMQ_MNESIA_BASE="$folder/data" \
        RABBITMQ_LOG_BASE="$folder/log" \
        RABBITMQ_FEATURE_FLAGS_FILE="$folder/data/feature_flags" \
        RABBITMQ_PID_FILE="$folder/pid.1" \
        RABBITMQ_CTL_DIST_PORT_MIN=0 RABBITMQ_CTL_DIST_PORT_MAX=0 \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} ${LONGSHORE_BROKER_ERL_ARGS:-}" \
        "$@"
}

# The node's epmd is its own, in the foreground of nobody, so that it is ended with the node and no other is touched.
launch_epmd() {
    if pid_of epmd.pid >/dev/null; then return; fi
    LONGSHORE_BROKER=$folder setsid epmd -port "$(epmd_port)" -address 127.0.0.1 </dev/null >/dev/null 2>&1 9>&- &
    echo $! >"$folder/epmd.pid"
}

rabbitmq_launch() {
    launch_epmd
    rm -f "$folder/pid.1"
    debian setsid "$RABBITMQ_BIN/rabbitmq-server" </dev/null >"$folder/output" 2>&1 9>&- &
    launched[1]=$!
}

# A node answers when it greets a client: its listener opens after everything else has started.
rabbitmq_answers() {
    local greeting
    greeting=$(
        {
            exec 3<>"/dev/tcp/127.0.0.1/$port"
            printf 'AMQP\x00\x00\x09\x01' >&3
            timeout 2 head -c 1 <&3 | od -An -tx1
        } 2>/dev/null
    ) || return 1
    [[ $greeting == *01* ]]
}

rabbitmq_output() {
    tail -n 20 "$folder"/log/*.log "$folder/output" 2>/dev/null
}

rabbitmq_ctl() {
    case $engine in
    debian) debian "$RABBITMQ_BIN/rabbitmqctl" "$@" ;;
    docker) compose exec --no-TTY node1 rabbitmqctl "$@" </dev/null ;;
    esac
}

rabbitmq_reset() {
    rabbitmq_ctl --quiet stop_app
    rabbitmq_ctl --quiet reset
    rabbitmq_ctl --quiet start_app
    wait_until_it_answers 1
}

rabbitmq_env() {
    echo "AMQP_PORT=$port"
    echo "AMQP_URL=amqp://guest:guest@127.0.0.1:$port"
    if ((management)); then echo "MANAGEMENT_URL=http://127.0.0.1:$(management_port)"; fi
    if ((tls)); then
        echo "AMQPS_PORT=$(amqps_port)"
        echo "AMQPS_URL=amqps://guest:guest@localhost:$(amqps_port)"
    fi
}
