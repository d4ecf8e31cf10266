# The library is not in shared_preload_libraries: whoever uses it is told which line to add where.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = eros_node('main', "shared_preload_libraries = ''\n");
my $hint = qr/HINT: .*"?shared_preload_libraries = 'eros'"?.*postgresql\.conf.*restart/;

my ($status, $stdout, $stderr) = $node->psql('postgres', 'CREATE EXTENSION eros');
is($status, 0, 'CREATE EXTENSION succeeds');
like($stderr, qr/WARNING: .*eros/, 'with a warning');
like($stderr, $hint, 'and a hint');

# Tests that a statement fails as it should.
sub asks_for_the_line
{
	my ($sql) = @_;

	($status, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	like($stderr, qr/ERROR:  55000: /, "error 55000: $sql");
	like($stderr, $hint, 'with the hint');
	return;
}

asks_for_the_line("SELECT $_")
  for 'eros_touch(1)', q{eros_touch('6f1b2a9e-0c6f-4f55-9a51-8f5b5f3c9b1a'::uuid)}, 'eros_touch(ARRAY[1, 2]::bigint[])',
  q{eros_touch(ARRAY['6f1b2a9e-0c6f-4f55-9a51-8f5b5f3c9b1a']::uuid[])};
asks_for_the_line($_)
  for 'SELECT * FROM eros.status', 'SELECT * FROM eros.status_worker', 'SELECT * FROM eros.status_phase',
  'SELECT * FROM eros.status_cache', q{SELECT eros.get('matches', 1)},
  'SELECT eros.sweep()', 'SELECT eros.now()', q{SELECT eros.advance_clock('1 s')}, 'SELECT eros.use_pg_cron()',
  q{SELECT eros.add_handler('a', 'b', 1)}, 'SELECT eros.clean_up()';
is(value($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'eros%'}), 0, 'no process runs');

# the way out of it, and the way in
$node->safe_psql('postgres', 'DROP EXTENSION eros');
is(value($node, 'postgres', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'eros'}), 0, 'DROP EXTENSION works');
$node->safe_psql('postgres', 'CREATE EXTENSION eros');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'eros'");
$node->restart;
polls_to($node, 'postgres', running(), 'EROS starts after that line and a restart');
soon_idle($node, 'postgres');
gated_handler($node, 'postgres');
$node->safe_psql('postgres', 'SELECT eros_touch(1)');
polls_to($node, 'postgres', q{SELECT eros.get('gated', 1) IS NOT NULL}, 'and works');

# the line is taken away again
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
asks_for_the_line($_)
  for 'SELECT eros_touch(1)', q{SELECT eros.get('gated', 1)}, q{SELECT eros.run_now('gated', 1)},
  q{SELECT eros.drop_handler('gated')}, 'SELECT * FROM eros.status_handler', 'SELECT * FROM eros.status_queue',
  'SELECT eros.create_partitions()', 'SELECT eros.purge()';
$node->safe_psql('postgres', 'DROP EXTENSION eros');
is(value($node, 'postgres', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'eros'}),
	0, 'DROP EXTENSION works with results left');

unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
