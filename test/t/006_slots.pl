# Too few worker slots, or none wanted: one warning with a hint, a line in the status, and recovery.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

# The warnings in a log that tell of a missing slot, and how many of them have a hint.
sub warnings_of
{
	my ($node) = @_;
	my $log = slurp_file($node->logfile);
	my @warnings = $log =~ /WARNING: .*(?:no free slot|EROS)/g;
	my @hints = $log =~ /HINT: .*max_worker_processes/g;

	return (scalar @warnings, scalar @hints);
}

# one slot for the launcher, one for a scheduler, none for a worker; the server itself takes one for
# logical replication, where that is not switched off
# and turns that do not end meanwhile
my $node = eros_node('main', "max_worker_processes = 2\nmax_logical_replication_workers = 0\neros.turn = 1h\n");

create_eros($node, 'postgres');
soon_idle($node, 'postgres');
gated_handler($node, 'postgres');
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(1, 5) u');
polls_to($node, 'postgres', q{SELECT status LIKE 'no free worker slot: %max_worker_processes%' FROM eros.status},
	'the status says that there is no slot for a worker');
is(value($node, 'postgres', 'SELECT count(*) FROM eros.job'), 5, 'the jobs are pending');

# tries go on, quietly: users keep coming
for my $user (6 .. 30)
{
	$node->safe_psql('postgres', "SELECT eros_touch($user)");
}
polls_to($node, 'postgres', 'SELECT count(*) FROM eros.job', 'users are swept and get jobs all the same', 30);
my ($warnings, $hints) = warnings_of($node);
is($warnings, 1, 'the log has one warning');
is($hints, 1, 'with a hint');
is(value($node, 'postgres', 'SELECT scheduler_pid IS NOT NULL FROM eros.status'), 't', 'the scheduler runs');

# a second database: not even a scheduler
$node->safe_psql('postgres', 'CREATE DATABASE two');
$node->safe_psql('two', 'CREATE EXTENSION eros');
$node->safe_psql('two', 'SELECT eros_touch(1)');
polls_to($node, 'two', q{SELECT status LIKE 'no free worker slot: %' FROM eros.status},
	'the status of another database says that there is no slot for its scheduler');
polls_to($node, 'two', q{SELECT active_users FROM eros.status}, 'touches are recorded there', 1);

($warnings, $hints) = warnings_of($node);
is($warnings, 1, 'the log has one warning for all databases');
is($hints, 1, 'with a hint');

# the slot of the one is free for the other
$node->safe_psql('postgres', 'DROP EXTENSION eros CASCADE');
polls_to($node, 'two', q{SELECT waiting_since IS NULL FROM eros.status_database WHERE database = 'two'}, 'when a slot is free the other does not wait any more');
$node->stop;

# slots for one database at a time: they are served in turns
my $eros_takes = "max_worker_processes = 3\nmax_logical_replication_workers = 0\n";
$node = eros_node('crowded', $eros_takes . "eros.worker_idle_timeout = 50ms\neros.turn = 1s\n");
$node->safe_psql('postgres', 'CREATE DATABASE two');
for my $db ('postgres', 'two')
{
	create_eros($node, $db);
	soon_idle($node, $db);
	gated_handler($node, $db);
}
$node->safe_psql($_, 'SELECT eros_touch(u) FROM generate_series(1, 5) u') for 'postgres', 'two';
polls_to($node, $_, q{SELECT count(*) FROM eros.get_many('gated', ARRAY[1, 2, 3, 4, 5]::bigint[])},
	"the jobs of database $_ are done, though two schedulers leave no slot for a worker", 5)
  for 'postgres', 'two';
$node->safe_psql('two', 'DROP EXTENSION eros CASCADE');
polls_to($node, 'postgres', 'SELECT status FROM eros.status', 'and all is well', 'ok');
$node->stop;

# the limit of EROS's own
$node = eros_node('limited', "eros.max_workers = 1\neros.workers = 2\n");
create_eros($node, 'postgres');
soon_idle($node, 'postgres', 1);
gated_handler($node, 'postgres');
open_gate($node, 'postgres', 0);
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(1, 5) u');
polls_to($node, 'postgres', computing(), 'one worker works');
polls_to($node, 'postgres', q{SELECT status LIKE 'no free worker slot: %' FROM eros.status}, 'the status says that a second one has no slot');
is(value($node, 'postgres', 'SELECT workers FROM eros.status'), 1, 'eros.max_workers holds');
open_gate($node, 'postgres', 1);
polls_to($node, 'postgres', q{SELECT count(*) FROM eros.get_many('gated', ARRAY[1, 2, 3, 4, 5]::bigint[])},
	'the jobs are done by one', 5);
($warnings, $hints) = warnings_of($node);
is($warnings, 1, 'the log has one warning');
$node->stop;

# the number of workers is changed while they work
$node = eros_node('reloaded', "eros.workers = 0\n");
create_eros($node, 'postgres');
soon_idle($node, 'postgres', 1);
gated_handler($node, 'postgres');
open_gate($node, 'postgres', 0);
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(1, 5) u');
polls_to($node, 'postgres', 'SELECT count(*) FROM eros.job', 'with eros.workers = 0 jobs are pending', 5);
is(value($node, 'postgres', 'SELECT workers FROM eros.status'), 0, 'no worker runs');
is( value($node, 'postgres', 'SELECT status FROM eros.status'),
	'no handler is called: set eros.workers to 1 or more, and reload the configuration',
	'which the status says');
reload_with($node, 'eros.workers' => 1);
polls_to($node, 'postgres', 'SELECT workers FROM eros.status', 'one, after a reload', 1);
reload_with($node, 'eros.workers' => 3);
polls_to($node, 'postgres', 'SELECT count(*) FROM eros.status_worker WHERE activity = \'computing\'', 'three, after another', 3);
reload_with($node, 'eros.workers' => 1);
open_gate($node, 'postgres', 1);
polls_to($node, 'postgres', q{SELECT count(*) FROM eros.get_many('gated', ARRAY[1, 2, 3, 4, 5]::bigint[])},
	'the jobs are done', 5);
polls_to($node, 'postgres', 'SELECT workers <= 1 FROM eros.status', 'then there is one, or none');
is(value($node, 'postgres', 'SELECT count(*) FROM app.call'), 5, 'nothing was done twice');
reload_with($node, 'eros.enabled' => 'off');
polls_to($node, 'postgres', 'SELECT workers FROM eros.status', 'none when EROS is switched off', 0);
$node->safe_psql('postgres', 'SELECT eros_touch(6)');
is(value($node, 'postgres', 'SELECT active_users FROM eros.status'), 1, 'touches are recorded all the same');
is(value($node, 'postgres', q{SELECT eros.get('gated', 5)}), 5, 'and results served');
reload_with($node, 'eros.enabled' => 'on');
polls_to($node, 'postgres', q{SELECT eros.get('gated', 6) IS NOT NULL}, 'work goes on when it is switched on');
$node->stop;
done_testing();
