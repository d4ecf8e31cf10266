# CREATE and DROP EXTENSION in a loop, in many databases at the same time, committed and rolled back:
# nothing is left behind, and EROS works in all of them afterwards.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $databases = 8;
my @dbs = map { "db$_" } 1 .. $databases;
my $node = eros_node('main', "eros.max_databases = $databases\n");

$node->safe_psql('postgres', "CREATE DATABASE $_") for @dbs;

# a round of each kind, twenty times; what is touched in one life is not known in the next
my $loop = join "\n", map { qq{
	CREATE EXTENSION eros;
	SELECT eros_touch(u) FROM generate_series(1, 100) u;
	BEGIN; DROP EXTENSION eros; ROLLBACK;
	SELECT 1 / count(*) FROM eros.phase;
	DROP EXTENSION eros;
	BEGIN; CREATE EXTENSION eros; SELECT eros_touch(1); ROLLBACK;
	BEGIN; CREATE EXTENSION eros; DROP EXTENSION eros; CREATE EXTENSION eros; COMMIT;
	DROP EXTENSION eros;} } 1 .. 20;
my %run;
for my $db (@dbs)
{
	$run{$db} = { in => $loop, out => '', err => '' };
	$run{$db}{psql} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db) ],
		'<', \$run{$db}{in}, '>', \$run{$db}{out}, '2>', \$run{$db}{err});
}
for my $db (@dbs)
{
	$run{$db}{psql}->finish;
	is($run{$db}{err}, '', "no error in database $db");
}

# nothing is left
polls_to($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^eros' AND datname IS NOT NULL}, 'no process is left', 0);
create_eros($node, 'db1');
polls_to($node, 'db1', 'SELECT count(*) FROM eros.status_database', 'no other database is known', 1);
is(value($node, 'db1', 'SELECT active_users FROM eros.status'), 0, 'nor a user of a former life');

# all of them have room, and work
create_eros($node, $_) for @dbs[ 1 .. $#dbs ];
for my $db (@dbs)
{
	soon_idle($node, $db);
	gated_handler($node, $db);
	$node->safe_psql($db, 'SELECT eros_touch(7)');
}
polls_to($node, $_, q{SELECT eros.get('gated', 7)}, "a user of database $_ is served", 7) for @dbs;
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal|TRAP|cache lookup failed/, 'nothing crashed');
$node->stop;
done_testing();
