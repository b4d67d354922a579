# What only Apache Kafka is: jars, settings, process, commands. Read by scripts/broker, whose drawing says who calls what.
#
# Measured with 4.1.0 on JDK 17 and 2 cores: the first start of a release takes some 25 s, 15 of them to fetch 54 MB and 10 to
# make the archive of its classes. From then on a node answers 1.5 s after its start (2.3 s without the archive), three after
# 4 s; on a machine that compiles meanwhile, one after 3 to 8 s. It takes 1 s of CPU and 160 MB to be there, and 175 MB after
# 3 million records. A killed one is back after 6 to 8 s, of which 4 are its session. A command by `ctl` takes 0.8 s.
# shellcheck shell=bash

readonly KAFKA_VERSION=4.1.0
readonly KAFKA_IMAGE=${LONGSHORE_KAFKA_IMAGE:-apache/kafka}
# What comes from Maven Central, a folder for each release.
readonly KAFKA_CACHE=${LONGSHORE_KAFKA_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/longshore}
# For quick starts and small nodes: the compiler's second tier has paid for itself after some 3 million records.
readonly KAFKA_JVM=${LONGSHORE_KAFKA_JVM:--Xms64m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1}
# Kafka logs by what it finds; without, by nothing.
readonly SLF4J_VERSION=1.7.36
# A release is some 55 MB.
readonly DOWNLOAD_LIMIT=10m

# Each listener of a node has one port of its block. All trust each other by INTERNAL.
readonly KAFKA_PLAINTEXT=0 KAFKA_INTERNAL=1 KAFKA_CONTROLLER=2 KAFKA_SSL=3 KAFKA_SASL=4 KAFKA_SASL_SSL=5 KAFKA_PROXIED=6
# A client goes where the node tells it to: one that comes by PROXIED, to this port, where a test's proxy listens.
readonly KAFKA_PROXY=7

# Who logs in by SASL: `guest` may do everything, `nobody` only what `ctl NAME acls` lets him.
readonly KAFKA_USER=guest KAFKA_PASSWORD=guest-password KAFKA_NOBODY=nobody KAFKA_NOBODY_PASSWORD=nobody-password

# --------------------------------------------------------------------------------------------------------- the release

kafka_release() { echo "$KAFKA_CACHE/kafka-$version"; }

kafka_install() {
    [[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || die "a release of Kafka is 4.1.0 or the like, not '$version'"
    command -v java >/dev/null || install_packages java default-jre-headless
    local release
    release=$(kafka_release)
    if [[ -e $release/bootstrap.checkpoint ]]; then return; fi
    command -v mvn >/dev/null || install_packages mvn maven
    mkdir -p "$KAFKA_CACHE"
    # Two starts at once: the second finds it there. What a killed one left is not looked at, and goes.
    exec 7>"$release.lock"
    flock -w "$INSTALL_LOCK_LIMIT" 7 || die "another start fetches Kafka $version and does not end"
    if [[ ! -e $release/bootstrap.checkpoint ]]; then
        rm -rf "$release" "$release.new"
        mkdir "$release.new"
        fetch_kafka "$release.new"
        mv "$release.new" "$release"
    fi
    exec 7>&-
}

# $1: an empty folder
fetch_kafka() {
    echo "broker: fetching Kafka $version from Maven Central" >&2
    cat >"$1/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>longshore</groupId>
  <artifactId>broker</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>$SLF4J_VERSION</version></dependency>
  </dependencies>
</project>
POM
    timeout "$DOWNLOAD_LIMIT" mvn -q -B -f "$1/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory=libs >&2 7>&- 9>&- || die "Kafka $version cannot be fetched from Maven Central"
    rm -f "$1"/libs/slf4j-reload4j-*.jar # that of releases before 4, which would be taken instead and has no settings
    # A formatted folder has this beside its ids: the features of the release, and the users by SCRAM. It is the same for
    # every node, and a JVM of 1.5 s is spared at each start.
    cat >"$1/format.properties" <<SETTINGS
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093
controller.listener.names=CONTROLLER
log.dirs=$1/formatted
SETTINGS
    # shellcheck disable=SC2046 # options are words
    java -cp "$1/libs/*" kafka.tools.StorageTool format -t "$(kafka_uuid)" -c "$1/format.properties" $(kafka_scram_users) \
        >"$1/format.log" 2>&1 9>&- || die "a folder of Kafka $version cannot be formatted: $(<"$1/format.log")"
    mv "$1/formatted/bootstrap.checkpoint" "$1/"
    rm -rf "$1/formatted" "$1/format.properties" "$1/format.log"
}

# As options of its format command.
kafka_scram_users() {
    local mechanism
    for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do
        echo "--add-scram $mechanism=[name=$KAFKA_USER,password=$KAFKA_PASSWORD]"
        echo "--add-scram $mechanism=[name=$KAFKA_NOBODY,password=$KAFKA_NOBODY_PASSWORD]"
    done | tr '\n' ' '
}

# Kafka's: 16 bytes by an alphabet without - and _, of which the first would look like an option.
kafka_uuid() {
    head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | tr -d '='
}

# In one order always: the archive of classes holds for the path that it was made with.
kafka_classpath() {
    local jars=("$(kafka_release)"/libs/*.jar)
    (IFS=: && echo "${jars[*]}")
}

# Classes of a node as the JVM has them after it read them: half of the time and of the CPU of a start. It holds for one JVM.
kafka_archive() {
    echo "$(kafka_release)/classes-$(stat -Lc %Y "$(command -v java)").jsa"
}

# Made by a node that only starts and stops, in the folder and on the ports of the broker that is about to start.
make_kafka_archive() {
    local archive
    archive=$(kafka_archive)
    exec 7>"$(kafka_release).lock"
    flock -w "$INSTALL_LOCK_LIMIT" 7 || die "another start makes the archive of Kafka $version and does not end"
    if [[ ! -e $archive ]]; then
        echo "broker: making Kafka $version start faster, once" >&2
        (
            count=1 nodes=(1) ports=("$port") tls=0 sasl=0 proxy=0 settings=()
            kafka_settings 1 >"$folder/1.properties"
            kafka_format 1
            kafka_share=-XX:ArchiveClassesAtExit=$archive.new
            launch 1
            halt_node 1
        )
        mv "$archive.new" "$archive"
    fi
    exec 7>&-
}

# --------------------------------------------------------------------------------------------------------- the settings

kafka_prepare() {
    local n cluster
    cluster=$(kafka_uuid)
    echo "$cluster" >"$folder/cluster"
    if [[ $engine == debian && ! -e $(kafka_archive) ]]; then make_kafka_archive; fi
    if ((tls)); then
        cat "$folder/tls/server.key" "$folder/tls/server.pem" >"$folder/tls/server.both"
    fi
    for n in "${nodes[@]}"; do
        kafka_settings "$n" >"$folder/$n.properties"
        kafka_format "$n"
    done
    if [[ $engine == docker ]]; then write_kafka_compose; fi
}

kafka_format() {
    [[ $engine == debian ]] || return 0
    rm -rf "$folder/data.$1"
    mkdir "$folder/data.$1"
    printf '%s=%s\n' version 1 cluster.id "$(<"$folder/cluster")" node.id "$1" directory.id "$(kafka_uuid)" \
        >"$folder/data.$1/meta.properties"
    cp "$(kafka_release)/bootstrap.checkpoint" "$folder/data.$1/"
}

# $1: node; $2: listener
kafka_port() { echo $((ports[$1 - 1] + $2)); }

# Where the other nodes find one.
kafka_host() {
    case $engine in
    debian) echo 127.0.0.1 ;;
    docker) echo "node$1" ;;
    esac
}

kafka_settings() {
    local n=$1 each voters=() listeners=() advertised=() bind=127.0.0.1 tls_folder=$folder/tls data=$folder/data.$1
    if [[ $engine == docker ]]; then bind=0.0.0.0 tls_folder=/tls data=/tmp/data; fi
    for each in "${nodes[@]}"; do voters+=("$each@$(kafka_host "$each"):$(kafka_port "$each" $KAFKA_CONTROLLER)"); done
    kafka_listener() {
        local at
        at=$(kafka_port "$n" "$2")
        listeners+=("$1://$bind:$at")
        if [[ $1 == PROXIED ]]; then at=$(kafka_port "$n" $KAFKA_PROXY); fi
        if [[ $1 != CONTROLLER ]]; then advertised+=("$1://$3:$at"); fi
    }
    kafka_listener PLAINTEXT $KAFKA_PLAINTEXT 127.0.0.1
    kafka_listener INTERNAL $KAFKA_INTERNAL "$(kafka_host "$n")"
    kafka_listener CONTROLLER $KAFKA_CONTROLLER ""
    if ((proxy)); then kafka_listener PROXIED $KAFKA_PROXIED 127.0.0.1; fi
    if ((tls)); then kafka_listener SSL $KAFKA_SSL 127.0.0.1; fi
    if ((sasl)); then kafka_listener SASL_PLAINTEXT $KAFKA_SASL 127.0.0.1; fi
    if ((sasl && tls)); then kafka_listener SASL_SSL $KAFKA_SASL_SSL 127.0.0.1; fi
    local isr=$((count > 1 ? 2 : 1)) IFS=,
    cat <<SETTINGS
process.roles=broker,controller
node.id=$n
controller.quorum.voters=${voters[*]}
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
listeners=${listeners[*]}
advertised.listeners=${advertised[*]}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
log.dirs=$data

# A topic is there because somebody made it.
auto.create.topics.enable=false
default.replication.factor=$count
min.insync.replicas=$isr
offsets.topic.replication.factor=$count
transaction.state.log.replication.factor=$count
transaction.state.log.min.isr=$isr
share.coordinator.state.topic.replication.factor=$count
share.coordinator.state.topic.min.isr=$isr

# Few of what has to be made before the first group or transaction.
offsets.topic.num.partitions=3
transaction.state.log.num.partitions=3
share.coordinator.state.topic.num.partitions=3

# A group begins at once, and one by KIP-848 misses a member as soon as a classic one may.
group.initial.rebalance.delay.ms=0
group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=1000
group.consumer.heartbeat.interval.ms=1000

# A node that was killed may come back when its session has ended, 9 s otherwise.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000

# Small: the cleaner takes 128 MB otherwise, and deleted topics keep their files for a minute.
log.cleaner.dedupe.buffer.size=4194304
log.segment.delete.delay.ms=1000
SETTINGS
    if ((tls)); then
        # A certificate is asked for, and looked at if there is one.
        cat <<SETTINGS

ssl.keystore.type=PEM
ssl.keystore.location=$tls_folder/server.both
ssl.truststore.type=PEM
ssl.truststore.location=$tls_folder/ca.pem
ssl.client.auth=requested
SETTINGS
    fi
    if ((sasl)); then
        cat <<SETTINGS

authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:CN=guest;User:$KAFKA_USER
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
SETTINGS
        local listener
        for listener in sasl_plaintext sasl_ssl; do
            if [[ $listener == sasl_ssl ]] && ((!tls)); then continue; fi
            local module=org.apache.kafka.common.security at=listener.name.$listener
            echo "$at.plain.sasl.jaas.config=$module.plain.PlainLoginModule required user_$KAFKA_USER=\"$KAFKA_PASSWORD\" user_$KAFKA_NOBODY=\"$KAFKA_NOBODY_PASSWORD\";"
            echo "$at.scram-sha-256.sasl.jaas.config=$module.scram.ScramLoginModule required;"
            echo "$at.scram-sha-512.sasl.jaas.config=$module.scram.ScramLoginModule required;"
        done
    fi
    if ((${#settings[@]})); then
        echo
        printf '%s\n' "${settings[@]}"
    fi
}

# Each node formats its folder at its first start, within its container.
write_kafka_compose() {
    local n listener users
    users=$(kafka_scram_users)
    {
        echo "services:"
        for n in "${nodes[@]}"; do
            echo "  node$n:"
            echo "    image: $KAFKA_IMAGE:$version"
            echo "    hostname: node$n"
            echo "    entrypoint: [bash, -c]"
            echo "    command:"
            echo "      - >-"
            echo "        /opt/kafka/bin/kafka-storage.sh format --ignore-formatted -t $(<"$folder/cluster") -c /node.properties $users"
            echo "        && exec /opt/kafka/bin/kafka-server-start.sh /node.properties"
            echo "    environment:"
            echo "      KAFKA_JVM_PERFORMANCE_OPTS: $KAFKA_JVM"
            echo "    ports:"
            for listener in $KAFKA_PLAINTEXT $KAFKA_SSL $KAFKA_SASL $KAFKA_SASL_SSL $KAFKA_PROXIED; do
                echo "      - 127.0.0.1:$(kafka_port "$n" "$listener"):$(kafka_port "$n" "$listener")"
            done
            echo "    volumes:"
            echo "      - $folder/$n.properties:/node.properties:ro"
            if ((tls)); then echo "      - $folder/tls:/tls:ro"; fi
        done
    } >"$folder/compose.yml"
}

# ---------------------------------------------------------------------------------------------------------- the process

kafka_java() {
    # The JVM would say on stdout when the archive is not for it.
    # shellcheck disable=SC2086 # options are words
    LONGSHORE_BROKER=$folder exec setsid java $KAFKA_JVM "${kafka_share:--XX:SharedArchiveFile=$(kafka_archive)}" \
        -Xlog:disable -Xlog:all=error:stderr \
        -Dorg.slf4j.simpleLogger.defaultLogLevel="$1" -Dorg.slf4j.simpleLogger.showDateTime=true \
        -Dorg.slf4j.simpleLogger.dateTimeFormat="HH:mm:ss,SSS" -cp "$(kafka_classpath)" "${@:2}"
}

kafka_launch() {
    kafka_java info kafka.Kafka "$folder/$1.properties" </dev/null >>"$folder/output.$1" 2>&1 9>&- &
    launched[$1]=$!
    echo $! >"$folder/pid.$1"
}

# The nodes that a node tells its clients of, by their numbers: it answers DescribeCluster, which any release does.
kafka_tells_of() {
    local bytes left at=44 length
    # Length, api 60 version 0, correlation, no client's name; no tags, no operations, no tags. The answer is one packet.
    mapfile -t bytes < <(
        {
            exec 3<>"/dev/tcp/127.0.0.1/$(kafka_port "$1" $KAFKA_PLAINTEXT)"
            printf '\0\0\0\015\0\074\0\0\0\0\0\0\377\377\0\0\0' >&3
            timeout 2 dd bs=4096 count=1 status=none <&3 | od -An -v -tu1 -w1
        } 2>/dev/null
    )
    # Before the nodes: length, correlation, tags, throttle, error, no text, the cluster's id (22), controller, their number.
    if ((${#bytes[@]} < at)); then return; fi
    for ((left = bytes[at - 1] - 1; left > 0; left--)); do
        # Number, host, port, no rack, no tags.
        echo $((bytes[at + 3]))
        length=$((bytes[at + 4]))
        at=$((at + 4 + length + 4 + 2))
    done
}

# When it knows of all who run, for so long another would send clients elsewhere.
kafka_answers() {
    local told n
    told=" $(kafka_tells_of "$1" | tr '\n' ' ')"
    [[ $told == *" $1 "* ]] || return 1
    for ((n = 1; n <= count; n++)); do
        if [[ $told != *" $n "* ]] && lives "$n" && ! frozen "$n"; then return 1; fi
    done
}

kafka_output() {
    tail -n 20 "$folder/output.$1" 2>/dev/null
}

# Apache's own commands, by their names without `kafka-`.
kafka_ctl() {
    local tool=${1:-} class
    shift || usage
    if [[ $engine == docker ]]; then
        compose exec --no-TTY node1 "/opt/kafka/bin/kafka-$tool.sh" --bootstrap-server "$(kafka_inside)" "$@"
        return
    fi
    case $tool in
    topics) class=org.apache.kafka.tools.TopicCommand ;;
    consumer-groups) class=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
    configs) class=kafka.admin.ConfigCommand ;;
    acls) case $version in 3.* | 4.0.*) class=kafka.admin.AclCommand ;; *) class=org.apache.kafka.tools.AclCommand ;; esac ;;
    get-offsets) class=org.apache.kafka.tools.GetOffsetShell ;;
    delete-records) class=org.apache.kafka.tools.DeleteRecordsCommand ;;
    transactions) class=org.apache.kafka.tools.TransactionsCommand ;;
    leader-election) class=org.apache.kafka.tools.LeaderElectionCommand ;;
    features) class=org.apache.kafka.tools.FeatureCommand ;;
    console-producer)
        class=org.apache.kafka.tools.ConsoleProducer
        if [[ $version == 3.* ]]; then class=kafka.tools.ConsoleProducer; fi
        ;;
    console-consumer) class=org.apache.kafka.tools.consumer.ConsoleConsumer ;;
    *) die "no command '$tool' of Kafka: topics, consumer-groups, configs, acls, get-offsets, delete-records, transactions, leader-election, features, console-producer, console-consumer" ;;
    esac
    (kafka_java error "$class" --bootstrap-server "$(kafka_inside)" "$@")
}

# Where a node's neighbours, and commands, find all of them.
kafka_inside() {
    local n all=()
    for ((n = 1; n <= count; n++)); do all+=("$(kafka_host "$n"):$(kafka_port "$n" $KAFKA_INTERNAL)"); done
    (IFS=, && echo "${all[*]}")
}

kafka_reset() {
    for_each_node kill_node
    case $engine in
    debian) for_each_node kafka_format ;;
    docker) compose rm --force >/dev/null 2>&1 ;; # the data lie in the containers
    esac
    launch "${nodes[@]}"
}

kafka_bootstrap() {
    local n all=()
    for n in "${!ports[@]}"; do all+=("127.0.0.1:$((ports[n] + $1))"); done
    (IFS=, && echo "${all[*]}")
}

kafka_env() {
    local nobody=$KAFKA_NOBODY:$KAFKA_NOBODY_PASSWORD guest=$KAFKA_USER:$KAFKA_PASSWORD
    echo "KAFKA_VERSION=$version"
    echo "KAFKA_BOOTSTRAP=$(kafka_bootstrap $KAFKA_PLAINTEXT)"
    echo "KAFKA_URL=kafka://$(kafka_bootstrap $KAFKA_PLAINTEXT)"
    if ((proxy)); then
        # A proxy listens on the first, for the second, of the first node.
        echo "KAFKA_PROXY_PORT=$(kafka_port 1 $KAFKA_PROXY)"
        echo "KAFKA_PROXIED_PORT=$(kafka_port 1 $KAFKA_PROXIED)"
    fi
    if ((tls)); then
        echo "KAFKAS_BOOTSTRAP=$(kafka_bootstrap $KAFKA_SSL)"
        echo "KAFKAS_URL=kafkas://$(kafka_bootstrap $KAFKA_SSL)"
    fi
    if ((sasl)); then
        # By PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512: guest may do everything, nobody only what `ctl NAME acls` lets him.
        echo "KAFKA_SASL_BOOTSTRAP=$(kafka_bootstrap $KAFKA_SASL)"
        echo "KAFKA_SASL_URL=kafka://$guest@$(kafka_bootstrap $KAFKA_SASL)"
        echo "KAFKA_NOBODY_URL=kafka://$nobody@$(kafka_bootstrap $KAFKA_SASL)"
    fi
    if ((sasl && tls)); then
        echo "KAFKAS_SASL_BOOTSTRAP=$(kafka_bootstrap $KAFKA_SASL_SSL)"
        echo "KAFKAS_SASL_URL=kafkas://$guest@$(kafka_bootstrap $KAFKA_SASL_SSL)"
    fi
}
