import FoundationEssentials
import LinuxSystem

/// Programs of this host that people run in containers, as far as they are installed, and what a container does with them.
///
/// The container has the host's `/usr` read-only. Its first process is a shell, which marks on its output where each phase begins and
/// ends, as `PhaseRecorder` reads it.
public struct IsolationApplications: Sendable {
    /// The directory of `redis-server`; nil: it is not installed.
    public private(set) var redis: String?
    /// The directory of `initdb`, `pg_ctl` and `pgbench`; nil: they are not installed.
    public private(set) var postgres: String?
    /// Those that are not installed, and what is missing.
    public private(set) var missing: [IsolationReport.Missing] = []

    /// In the container: the files of the database, which belong to `user`.
    public static let database = "/work/database"
    /// The user and group that the database server runs as; it refuses root.
    public static let user: UInt32 = 65534

    /// Looks for them.
    ///
    /// - Parameters:
    ///   - path: directories, as in PATH.
    ///   - versions: the directory in which Debian has those of each version of PostgreSQL.
    public init(path: String, versions: String = "/usr/lib/postgresql") {
        redis = Self.directory(of: ["redis-server", "redis-cli", "redis-benchmark"], in: path)
        if redis == nil { missing.append(.init("redis", "no redis-server, redis-cli and redis-benchmark in PATH")) }
        let numbers = ((try? directoryNames(versions)) ?? []).sorted { Int($0) ?? 0 > Int($1) ?? 0 }
        let places = numbers.map { "\(versions)/\($0)/bin" } + [path]
        postgres = places.lazy.compactMap { Self.directory(of: ["initdb", "pg_ctl", "pgbench"], in: $0) }.first
        if postgres == nil { missing.append(.init("PostgreSQL", "no initdb, pg_ctl and pgbench in PATH")) }
    }

    /// The first directory that has all of the programs, below `/usr`, which the container has too.
    private static func directory(of programs: [String], in path: String) -> String? {
        path.split(separator: ":").map(String.init).first { directory in
            directory.hasPrefix("/usr/") && programs.allSatisfy { RuntimeDiscovery.locate($0, path: directory) != nil }
        }
    }

    /// What the container's shell does with redis: it answers GET and SET of twenty clients over the loopback.
    public var redisScript: String? {
        redis.map { directory in
            """
            PATH=\(directory):$PATH
            \(Self.phase)
            redis-server --bind 127.0.0.1 --save '' --dir /tmp --daemonize yes >/dev/null
            until redis-cli ping >/dev/null 2>&1; do sleep 0.05; done
            for kind in get set; do
                phase redis-$kind \(Self.redisRequests) redis-benchmark -h 127.0.0.1 -q -c 20 -n \(Self.redisRequests) -t $kind
            done
            redis-cli shutdown nosave
            echo martlet-bench done
            """
        }
    }

    /// What the container's shell does with PostgreSQL: pgbench's own transactions, of four clients over a Unix socket.
    public var postgresScript: String? {
        postgres.map { directory in
            """
            PATH=\(directory):$PATH
            \(Self.phase)
            work() { pgbench -h /tmp -U postgres -n -c 4 "$@" postgres; }
            pg_ctl -D \(Self.database) -w -t 90 -o '-c listen_addresses= -k /tmp' -l /tmp/log start >/dev/null || {
                echo martlet-bench failed: the database server does not start: $(tail -n 1 /tmp/log 2>&1)
                exit 1
            }
            psql -h /tmp -U postgres -qc 'select 1 from pgbench_accounts limit 1' postgres >/dev/null 2>&1 ||
                pgbench -h /tmp -U postgres -q -i -s 1 postgres >/dev/null 2>&1
            phase postgres-read \(4 * Self.reads) work -S -t \(Self.reads)
            phase postgres-write \(4 * Self.writes) work -N -t \(Self.writes)
            pg_ctl -D \(Self.database) -m fast stop >/dev/null
            echo martlet-bench done
            """
        }
    }

    private static let redisRequests = 10_000
    /// Transactions of each client.
    private static let reads = 500
    private static let writes = 50

    /// The shell's function `phase NAME AMOUNT COMMAND…`.
    private static let phase = """
        phase() {
            name=$1 amount=$2
            shift 2
            echo martlet-bench begin $name
            if "$@" >/tmp/output 2>&1; then
                echo martlet-bench end $name $amount
            else
                echo martlet-bench missed $name $(tail -n 1 /tmp/output)
            fi
        }
        """
}
