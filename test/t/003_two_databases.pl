# Databases side by side: each with the extension has its own processes, users and results, and one
# without it has nothing.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = eros_node('main');

# Tests that a database has no process of EROS, or comes to have none.
sub has_nothing
{
	my ($db, $name) = @_;

	return polls_to($node, 'postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'eros %' AND datname = '$db'", $name, 0);
}

# The processes of EROS in a database, by kind.
sub processes
{
	my ($db) = @_;

	return value($node, 'postgres', qq{
		SELECT string_agg(backend_type, ', ' ORDER BY backend_type) FROM pg_stat_activity
		WHERE backend_type LIKE 'eros %' AND datname = '$db'});
}

for my $db ('one', 'two')
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	create_eros($node, $db);
	soon_idle($node, $db);
	gated_handler($node, $db);
	open_gate($node, $db, 0);
}
$node->safe_psql('postgres', 'CREATE DATABASE three');

# processes
isnt(
	value($node, 'one', 'SELECT scheduler_pid FROM eros.status'),
	value($node, 'two', 'SELECT scheduler_pid FROM eros.status'),
	'each database has its own scheduler');
is(value($node, 'one', 'SELECT launcher_pid FROM eros.status'),
	value($node, 'two', 'SELECT launcher_pid FROM eros.status'), 'the launcher is one for all');
$node->safe_psql($_, 'SELECT eros_touch(1)') for 'one', 'two';
polls_to($node, $_, computing(), "a worker is at work in database $_") for 'one', 'two';
is(processes($_), 'eros scheduler, eros worker', "the processes in database $_") for 'one', 'two';
is( value($node, 'postgres', q{
		SELECT string_agg(DISTINCT application_name, ', ' ORDER BY application_name)
		FROM pg_stat_activity WHERE backend_type LIKE 'eros %' AND datname = 'one'}),
	'eros scheduler, eros worker',
	'they have a name');
has_nothing('three', 'none in a database without the extension');
has_nothing('postgres', 'none in another one without it');

# users and results
$node->safe_psql('one', 'SELECT eros_touch(ARRAY[2, 3]::bigint[])');
$node->safe_psql('two', 'SELECT eros_touch(4)');
polls_to($node, 'one', 'SELECT idle_users FROM eros.status', 'three users in one database', 3);
polls_to($node, 'two', 'SELECT idle_users FROM eros.status', 'two in the other', 2);
open_gate($node, 'one', 1);
polls_to($node, 'one', q{SELECT count(*) FROM eros.get_many('gated', ARRAY[1, 2, 3, 4]::bigint[])},
	'results in the one database', 3);
is(value($node, 'two', q{SELECT count(*) FROM eros.get_many('gated', ARRAY[1, 2, 3, 4]::bigint[])}),
	0, 'and none in the other');
is(value($node, 'two', 'SELECT jobs_pending FROM eros.status'), 2, 'where the jobs are pending');
is(value($node, 'one', 'SELECT users_done FROM eros.status_handler'), 3, 'users done are counted in the one');
is(value($node, 'two', 'SELECT users_done FROM eros.status_handler'), 0, 'and not in the other');

# a return halts the user's batch in his own database only
$node->safe_psql('one', 'SELECT eros_touch(1); SELECT eros_touch(4)');
is(value($node, 'two', 'SELECT halts FROM eros.status'), 0, 'a return in one halts nothing in the other');
polls_to($node, 'two', computing(), 'whose worker goes on');
$node->safe_psql('two', 'SELECT eros_touch(1)');
polls_to($node, 'two', 'SELECT halts > 0 FROM eros.status', 'a return in its own database halts it');
open_gate($node, 'two', 1);
polls_to($node, 'two', q{SELECT count(*) FROM eros.get_many('gated', ARRAY[1, 4]::bigint[])},
	'then its results are there as well', 2);

# settings of one are not those of the other
$node->safe_psql('one', 'UPDATE eros.phase SET batch_size = 7 WHERE phase = 1');
is(value($node, 'two', 'SELECT batch_size FROM eros.status_phase WHERE phase = 1'), 15, 'phases are each one\'s own');
$node->safe_psql('one', q{SELECT eros.drop_handler('gated')});
is(value($node, 'two', q{SELECT eros.get('gated', 4)}), 4, 'and so are handlers');

# a copy of a database with the extension
$node->safe_psql('postgres', 'CREATE DATABASE four TEMPLATE two');
polls_to($node, 'four', running(), 'a copy of a database with the extension has a scheduler');
polls_to($node, 'two', running(), 'and so has the original again');
is(value($node, 'four', 'SELECT idle_users FROM eros.status'), 2, 'the copy has the idle users of the original');
is(value($node, 'four', q{SELECT eros.get('gated', 4)}), 4, 'and its results');
$node->safe_psql('four', 'SELECT eros_touch(5)');
polls_to($node, 'four', q{SELECT eros.get('gated', 5) IS NOT NULL}, 'it works');
is(value($node, 'two', 'SELECT active_users + idle_users FROM eros.status'), 2, 'the original does not notice');

# a template
$node->safe_psql('template1', 'CREATE EXTENSION eros');
has_nothing('template1', 'nothing runs in a template');
$node->safe_psql('postgres', 'CREATE DATABASE five');
$node->safe_psql('five', 'SELECT eros_touch(1)');
polls_to($node, 'five', running(), 'a database made from a template with the extension has a scheduler');
has_nothing('template1', 'the template has none');
is(value($node, 'five', 'SELECT active_users FROM eros.status'), 1, 'the first touch was not lost');

# a server that starts finds them all
$node->restart;
polls_to($node, $_, running(), "after a restart a scheduler runs in database $_") for 'one', 'two', 'four', 'five';
has_nothing($_, "and comes to rest in database $_") for 'three', 'postgres', 'template1';

unlike(slurp_file($node->logfile), qr/WARNING|ERROR|PANIC/, 'the log has no complaint');
$node->stop;
done_testing();
