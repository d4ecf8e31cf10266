# Many databases (EROS_TEST_DATABASES) and eight worker slots: they are served in turns, touches and halts work without
# a scheduler, who is not served is named in the status.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $databases = $ENV{EROS_TEST_DATABASES} // 20;
my $users = 20;

# eight slots: one for the launcher, one for the server's own logical replication launcher
my $node = eros_node('main', qq{
	max_worker_processes = 8
	eros.turn = 500ms
	eros.max_workers = 8
	eros.worker_idle_timeout = 100ms
	eros.max_handlers = 200
});

# Runs a statement in all the databases.
sub everywhere
{
	my ($sql) = @_;
	my $script = join '', map { "\\c db$_\n$sql;\n" } 1 .. $databases;

	return $node->safe_psql('postgres', $script);
}

# The processes of EROS that take a slot.
sub processes
{
	return value($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'eros %'});
}

$node->safe_psql('postgres', 'CREATE DATABASE db1');
create_eros($node, 'db1');
soon_idle($node, 'db1');
gated_handler($node, 'db1', 0.05);
$node->safe_psql('postgres', join '', map { "CREATE DATABASE db$_ TEMPLATE db1;" } 2 .. $databases);

# nothing to do: the databases are looked at, in turns
polls_to($node, 'db1', q{SELECT count(*) FROM eros.status_database WHERE turns > 0}, 'all databases have been looked at',
	$databases);
polls_to($node, 'db1', q{SELECT count(*) FROM eros.status_database WHERE status <> 'ok'},
	'and all is well in all of them', 0);
cmp_ok(processes(), '<=', 7, 'with the slots that there are');

# something to do everywhere, at the same time
everywhere("SELECT eros_touch(u) FROM generate_series(1, $users) u");
my @served = grep { $node->poll_query_until("db$_", qq{
		SELECT count(*) = $users FROM eros.get_many('gated', ARRAY(SELECT generate_series(1, $users))::bigint[])}) } 1 .. $databases;
is(scalar(@served), $databases, 'each database has the results of all its users');
my @calls = split /\n/, everywhere('SELECT count(*), count(DISTINCT user_id) FROM app.call');
is(scalar(grep { $_ eq "$users|$users" } @calls), $databases, 'no user was computed twice') or diag("@calls");

# who comes when no scheduler runs is served as well
polls_to($node, 'db1', q{SELECT count(*) FROM eros.status_database WHERE waiting_since IS NOT NULL}, 'nobody waits', 0);
my $absent = value($node, 'db1', q{SELECT min(database) FROM eros.status_database WHERE scheduler_pid IS NULL});
like($absent, qr/^db/, 'a database without idle users has no scheduler');
is(value($node, $absent, 'SELECT status FROM eros.status'), 'ok', 'which is as it should be');
$node->safe_psql($absent, 'SELECT eros_touch(1000)');
polls_to($node, $absent, q{SELECT eros.get('gated', 1000)}, 'a user who comes there is served', 1000);

# a worker in the middle of a call stays, its scheduler does not; a return halts it all the same
open_gate($node, 'db2', 0);
everywhere('UPDATE eros.phase SET batch_size = 1 WHERE phase = 1; SELECT eros_touch(u) FROM generate_series(2001, 2100) u');
polls_to($node, 'db2',
	q{SELECT scheduler_pid IS NULL AND EXISTS (SELECT FROM eros.status_worker WHERE activity = 'computing') FROM eros.status},
	'a worker computes while no scheduler runs');
my $halts = value($node, 'db2', 'SELECT halts FROM eros.status_halt');
$node->safe_psql('db2', 'SELECT eros_touch(u) FROM generate_series(2001, 2100) u');
polls_to($node, 'db2', "SELECT halts > $halts FROM eros.status_halt", 'his return halts it');
open_gate($node, 'db2', 1);

# everybody has more to do than a turn takes: all are served alike
polls_to($node, 'db1', q{SELECT count(*) > 0 FROM eros.status_database WHERE status LIKE 'waits for a worker slot%'},
	'databases that wait are named in the status');
is(join('', everywhere(q{SELECT coalesce(string_agg(message, ' '), '') FROM eros.problems() WHERE problem = 'no_worker_slot' AND severity = 'critical'})) =~ s/\n//gr,
	'', 'but nobody is woken for it');
@served = grep { $node->poll_query_until("db$_", q{SELECT count(*) > 0 FROM app.call WHERE user_id > 2000}) } 1 .. $databases;
is(scalar(@served), $databases, 'each database comes to its turn, however much the others have to do');
@calls = sort { $a <=> $b } split /\n/, everywhere('SELECT count(*) FROM app.call WHERE user_id > 2000');
note("users done when the last database was first served: $calls[0] to $calls[-1]");
cmp_ok($calls[0], '>', 0, 'a little at least');

# the log is quiet
my $log = slurp_file($node->logfile);
my @warnings = $log =~ /WARNING: .*no free worker slot/g;
is(scalar @warnings, 1, 'the log has one warning for all databases');
my @lines = grep { !/no free worker slot|served in turns|max_worker_processes/ } grep { / eros / && !/administrator command|exited with exit code/ } split /\n/, $log;
is(scalar @lines, 0, 'and nothing else of EROS') or diag(join "\n", @lines[0 .. ($#lines < 9 ? $#lines : 9)]);

# who cannot be served is named, to the monitor too, and to nobody else
$node->safe_psql('postgres', 'ALTER DATABASE db4 ALLOW_CONNECTIONS false');
polls_to($node, 'db1', q{SELECT status FROM eros.status_database WHERE database = 'db4'}, 'one that allows no connections is',
	'left alone: it allows no connections');
$node->safe_psql('postgres', 'ALTER DATABASE db4 ALLOW_CONNECTIONS true; CREATE ROLE monitor IN ROLE pg_monitor; CREATE ROLE nobody');
$node->safe_psql('db5', q{ALTER EXTENSION eros DROP TABLE eros.spilled_touch; ALTER TABLE eros.activity RENAME TO other});
$node->safe_psql('db5', q{SELECT eros_touch(1)});
polls_to($node, 'db1', q{SELECT count(*) FROM eros.status_database WHERE database = 'db5' AND status LIKE 'its scheduler fails (SQLSTATE 42P01)%'},
	'one whose extension is broken', 1);
polls_to($node, 'db5', q{SELECT status LIKE '%fails (SQLSTATE 42P01)%' FROM eros.status}, 'also in its own status');
is(value($node, 'db1', q{SET ROLE monitor; SELECT count(*) FROM eros.status_database}), $databases, 'the monitor sees it');
my ($status, $stdout, $stderr) = $node->psql('db1', 'SET ROLE nobody; SELECT * FROM eros.status_database');
like($stderr, qr/permission denied/, 'others do not');
polls_to($node, 'db1', q{SELECT count(*) FROM eros.status_database WHERE database = 'db4' AND turns > 0},
	'the one that allows connections again is served', 1);
$node->safe_psql('db6', 'SELECT eros_touch(3000)');
polls_to($node, 'db6', q{SELECT eros.get('gated', 3000)}, 'a broken one does not keep others from being served', 3000);

# with slots enough there are no turns
$node->safe_psql('postgres', 'ALTER SYSTEM SET max_worker_processes = 250');
$node->restart;
polls_to($node, 'db1', q{SELECT count(*) FILTER (WHERE scheduler_pid IS NOT NULL) = count(*) FROM eros.status_database
	WHERE database <> 'db5'}, 'with slots enough each database keeps its scheduler');

unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
