#!/bin/sh
# Makes an archive of the classes that brokers and tools load: a virtual machine maps it instead of reading, checking and
# linking the same classes at every start, which is half of the processor time of a start.
#   classes.sh JARS CLUSTER ADDRESS ARCHIVE
# JARS by the path that is used later, the archive holds for no other; CLUSTER is the folder of a formatted cluster of one
# node that listens on ADDRESS. To be run in a network of its own.
set -eu
jars=$1 cluster=$2 address=$3 archive=$4
java="java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx256m"

# Runs a tool and remembers what it loads.
tool() {
  class=$1 option=$2; shift 2
  $java "-XX:DumpLoadedClassList=$class.list" "-Dlog4j2.configurationFile=$cluster/tools-log4j2.properties" -cp "$jars/*" \
    "$class" --bootstrap-server "$address" "$option" "$cluster/client.properties" "$@" >&2
}

ip link set lo up
ip address add "${address%:*}/32" dev lo
$java -XX:DumpLoadedClassList=kafka.tools.StorageTool.list -cp "$jars/*" \
  kafka.tools.StorageTool info -c "$cluster/server-1.properties" >&2
$java -XX:DumpLoadedClassList=kafka.Kafka.list "-Dlog4j2.configurationFile=$cluster/log4j2.properties" -cp "$jars/*" \
  kafka.Kafka "$cluster/server-1.properties" >&2 &
broker=$!
trap 'kill $broker 2>/dev/null || true' EXIT
trap 'exit 1' INT TERM
# The first one waits for the broker by itself.
tool org.apache.kafka.tools.TopicCommand --command-config --create --topic t
tool kafka.admin.ConfigCommand --command-config --describe --entity-type topics --entity-name t
tool org.apache.kafka.tools.AclCommand --command-config --list
echo record | tool org.apache.kafka.tools.ConsoleProducer --producer.config --topic t
tool org.apache.kafka.tools.consumer.ConsoleConsumer --consumer.config --topic t --from-beginning --max-messages 1
kill $broker
wait $broker || true
# Numbers tell classes of one list apart; classes of other loaders cannot be archived with these.
cat ./*.list | grep -v ' source: ' | sed 's/ id: [0-9]*$//' | sort -u >all
$java -Xshare:dump -XX:SharedClassListFile=all "-XX:SharedArchiveFile=$archive" -cp "$jars/*" >&2
