# The report in a browser: nothing is loaded, nothing complains, it fits, and it can be read.
#
# Runs wherever there is Chromium (Debian: chromium-headless-shell, 100 MB to load); on CI it is installed.

use strict;
use warnings;

use ErosTest;
use File::Copy;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my ($chromium) = grep { -x $_ }
  map { ("$_/chromium-headless-shell", "$_/chromium", "$_/chromium-browser", "$_/google-chrome") }
  split /:/, $ENV{PATH};

plan skip_all => 'there is no Chromium; make check installs one with CI=true' unless defined $chromium;

# Opens a page in a browser of its own; returns what the page has become, and the log.
sub browse
{
	my ($page, $scheme) = @_;
	my $profile = PostgreSQL::Test::Utils::tempdir;
	my ($dom, $log) = ('', '');

	local $ENV{HOME} = $profile;
	IPC::Run::run(
		[ $chromium, '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
			'--disable-background-networking', '--disable-component-update', '--disable-sync',
			'--disable-dev-shm-usage', '--allow-file-access-from-files', "--user-data-dir=$profile",
			"--blink-settings=preferredColorScheme=$scheme", '--enable-logging=stderr',
			'--window-size=1400,1000', '--virtual-time-budget=20000', '--dump-dom', "file://$page" ],
		'>', \$dom, '2>', \$log,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default * 2));
	return ($dom, $log);
}

my $node = eros_node('main');
create_eros($node, 'postgres');

# names that want to be more, a failing handler, and a day of history
$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION one(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
		LANGUAGE sql AS $$ SELECT u, '1'::jsonb FROM unnest(user_ids) u $$;
	SELECT eros.add_handler(name, 'one', phase => 1 + length(name) % 3, enabled => false) FROM unnest(ARRAY[
		'matches', '<img src=x onerror="console.error(1)">', '</style><script>console.error(2)</script>',
		'"onfocus="console.error(3)" autofocus tabindex=1 x="', repeat('longword', 7)]) name;
	UPDATE eros.handler SET error = '<b onmouseover=console.error(4)>cannot', error_at = now() WHERE name LIKE '<img%'});
$node->safe_psql('postgres', slurp_file("$FindBin::RealBin/../pgtap/include/day.sql"));

my $folder = PostgreSQL::Test::Utils::tempdir;
my $report = $node->safe_psql('postgres', 'SELECT eros.report()');
append_to_file("$folder/report.html", $report);
copy("$FindBin::RealBin/report/look.html", "$folder/look.html") or die $!;

for my $scheme ([ 'light', 1 ], [ 'dark', 0 ])
{
	my ($name, $number) = @$scheme;
	my ($dom, $log) = browse("$folder/look.html", $number);
	my ($found) = $dom =~ m{<pre id="found">(.*?)</pre>}s;

	is($found, "$name, looked", "$name: it fits from 320 to 1280 pixels, loads nothing, and can be read");
	unlike($log, qr/CONSOLE/, "$name: nothing complains");
}

# the test sees what it is there for
my $bad = $report =~ s{</main>}{<img src="missing.png" alt=""><p style="width: 2000px; color: #999; background: #fff">pale</p></main>}r;
unlink "$folder/report.html";
append_to_file("$folder/report.html", $bad);
my ($dom, $log) = browse("$folder/look.html", 1);
like($log, qr/CONSOLE.*Content Security Policy/, 'a page that would load something is kept from it, and complains');
like($dom, qr/320 wide: scrolls sideways.*320 wide: contrast 2\.\d+: pale/s, 'one that is too wide or too pale is found');

done_testing();
