# A hot standby: EROS serves results there, refuses touches, computes nothing, and begins to when the
# standby is promoted.

use strict;
use warnings;

use ErosTest;
use IPC::Run qw(start);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = eros_node('primary', '', allows_streaming => 1);

create_eros($primary, 'postgres');
soon_idle($primary, 'postgres', 2);
gated_handler($primary, 'postgres');
$primary->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(1, 10) u');
polls_to($primary, 'postgres', q{SELECT count(*) FROM eros.get_many('gated', ARRAY(SELECT generate_series(1::bigint, 20)))},
	'the primary has results', 10);

my $standby = PostgreSQL::Test::Cluster->new('standby');
$primary->backup('backup');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

# jobs that are pending when the primary is lost, one of them being run
open_gate($primary, 'postgres', 0);
$primary->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(11, 20) u');
polls_to($primary, 'postgres', 'SELECT count(*) FROM eros.job', 'the primary has pending jobs', 10);
polls_to($primary, 'postgres', computing(), 'and a worker at work');
on_disk($primary, 'postgres');
$primary->wait_for_catchup($standby, 'replay');

# as long as it is a standby
my $no_process = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'eros%'};
is(value($standby, 'postgres', $no_process), 0, 'no process of EROS runs on the standby');
is(value($standby, 'postgres', q{SELECT eros.get('gated', 10)}), 10, 'results can be read there');
is( value($standby, 'postgres', q{SELECT count(*) FROM eros.get_many('gated', ARRAY(SELECT generate_series(1::bigint, 20)))}),
	10, 'many, too');
is(value($standby, 'postgres', q{SELECT eros.get('gated', 20) IS NULL}), 't', 'and those that are not there are not');
is(value($standby, 'postgres', 'SELECT count(*) FROM eros.job'), 10, 'the jobs are there');
my ($status, $stdout, $stderr);
for my $touch ('101', q{'101'::text}, 'ARRAY[101, 102]::bigint[]', q{'6f1b2a9e-0c6f-4f55-9a51-8f5b5f3c9b1a'::uuid},
	q{ARRAY['6f1b2a9e-0c6f-4f55-9a51-8f5b5f3c9b1a']::uuid[]})
{
	($status, $stdout, $stderr) = $standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT eros_touch($touch)");
	like($stderr, qr/25006: cannot record a touch during recovery.*HINT:  Call eros_touch\(\) on the primary/s,
		"a touch is a clear error: $touch");
}
is(value($standby, 'postgres', 'SELECT active_users FROM eros.status'), 0, 'and nothing is kept of it');
is(value($standby, 'postgres', 'SELECT status FROM eros.status'), 'ok', 'all is well: nothing is to run there');
is( value($primary, 'postgres', q{SELECT item || ' ' || measured FROM eros.checklist() WHERE item IN (10, 13) ORDER BY item}),
	"10 1 connected\n13 replicas at 1 addresses", 'the checklist of the primary sees the standby');
is(value($primary, 'postgres', 'SELECT state FROM eros.checklist() WHERE item = 10'), 'ok', 'as its read replica');
my $archive = PostgreSQL::Test::Utils::tempdir();
my $receiver = start([ 'pg_receivewal', '-D', $archive, '-d', $primary->connstr('postgres') ]);
polls_to($primary, 'postgres', q{SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'}, 'somebody else receives the WAL, too', 2);
is(value($primary, 'postgres', 'SELECT measured FROM eros.checklist() WHERE item = 10'), '1 connected', 'who is no replica');
$receiver->kill_kill;
is(value($primary, 'postgres', 'SELECT state FROM eros.checklist() WHERE item = 8'), 'does not apply', 'no failover yet');
($status, $stdout, $stderr) = $standby->psql('postgres', 'SELECT * FROM eros.checklist()');
is($status, 0, 'the checklist can be read on the standby') or diag($stderr);
for my $view ('status_phase', 'status_handler', 'status_worker', 'status_queue', 'status_cache')
{
	($status, $stdout, $stderr) = $standby->psql('postgres', "SELECT * FROM eros.$view");
	is($status, 0, "eros.$view can be read there") or diag($stderr);
}

# a session that has read the handlers sees one that comes later
my $session = open_session($standby, 'postgres');
like(in_session($session, q{SELECT eros.get('later', 1)}), qr/handler "later" does not exist/, 'a handler that is not there');
$primary->safe_psql('postgres', q{SELECT eros.add_handler('later', 'app.gated', phase => 3)});
on_disk($primary, 'postgres');
$primary->wait_for_catchup($standby, 'replay');
is(in_session($session, q{SELECT eros.get('later', 1) IS NULL}), "t\n", 'is there for the same session as soon as it comes along');
close_session($session);

for my $sql ('SELECT eros.sweep()', q{SELECT eros.run_now('gated', 1)}, q{SELECT eros.invalidate('gated', 1)},
	q{SELECT eros.retry('gated')}, 'SELECT eros.clean_up()', q{SELECT eros.disable_handler('gated')})
{
	($status, $stdout, $stderr) = $standby->psql('postgres', $sql);
	like($stderr, qr/ERROR:  (cannot|recovery)/, "an error, nothing worse: $sql");
}
is(value($standby, 'postgres', $no_process), 0, 'all of it has started no process');

# that jobs are not done there is nothing to be woken for
$standby->safe_psql('postgres', q{SELECT eros.advance_clock('2 hours')});
is(value($standby, 'postgres', q{SELECT max(oldest_wait) > '1 hour' FROM eros.status_queue}), 't', 'jobs have waited for two hours');
is(value($standby, 'postgres', q{SELECT string_agg(problem, ' ') FROM eros.problems()}), '', 'which is no problem');

# a restart of the standby
$standby->restart;
$standby->safe_psql('postgres', q{SELECT eros.advance_clock('20 minutes')});
is(value($standby, 'postgres', $no_process), 0, 'a restart of the standby starts no process either');

# the primary is lost
$primary->stop('immediate');
$standby->promote;
polls_to($standby, 'postgres', running(), 'launcher and scheduler run after the promotion');
is(value($standby, 'postgres', 'SELECT count(*) FROM app.call'), 10, 'what was half done on the primary is not done');
polls_to($standby, 'postgres', computing(), 'a worker takes the jobs');
is(value($standby, 'postgres', q{SELECT count(*) FROM eros.problems() WHERE problem = 'queue_stalled'}), 0, 'nor is it now, when they are just begun');
open_gate($standby, 'postgres', 1);
polls_to($standby, 'postgres', q{SELECT count(*) FROM eros.get_many('gated', ARRAY(SELECT generate_series(1::bigint, 20)))},
	'the pending jobs are done', 20);
polls_to($standby, 'postgres', 'SELECT count(*) FROM eros.job', 'no job is left', 0);
is(value($standby, 'postgres', 'SELECT count(*) - count(DISTINCT user_id) FROM app.call'), 0, 'nothing was done twice');
polls_to($standby, 'postgres', 'SELECT status FROM eros.status', 'all is well', 'ok');
is(value($standby, 'postgres', 'SELECT jobs_pending + jobs_failed FROM eros.status'), 0, 'and counted well');
$standby->safe_psql('postgres', 'CHECKPOINT'); # the control file has the timeline
is(value($standby, 'postgres', 'SELECT state FROM eros.checklist() WHERE item = 8'), 'ok', 'a failover is done, says the checklist');
$standby->safe_psql('postgres', 'SELECT eros_touch(30)');
polls_to($standby, 'postgres', q{SELECT eros.get('gated', 30) IS NOT NULL}, 'new users are served');

unlike(slurp_file($standby->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');
$standby->stop;
done_testing();
