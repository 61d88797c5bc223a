# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""E-mail, by SMTP or by the local sendmail."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import smtplib
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any, Optional

from ..core.errors import PgopsError
from ..core.notices import Notice
from ..system.runner import Command
from .channel import Channel
from .http import Answer, DeliveryError, to_body

_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_HERE = ("localhost", "127.0.0.1", "::1")


class EmailChannel(Channel):
    """One message to all addresses; it is accepted when the server took it for one of them, and says who is left out.

    By SMTP each address takes or refuses it for itself: for good, or for now.
    """

    name = "email"
    bundles = True

    def addresses(self) -> list[str]:
        """Return who gets it, where each is asked."""
        return list(dict.fromkeys(self.section.to)) if self.section.smtp_host else []

    def send(self, notice: Notice) -> Answer:
        """Send the mail. Raise DeliveryError if it is accepted for nobody."""
        return self.send_to(notice, self.addresses())

    def send_to(self, notice: Notice, only: Sequence[str]) -> Answer:
        """Send the mail to those addresses `only`; the local sendmail gets it for all. Raise DeliveryError if none takes it."""
        sender = self.section.sender or "pgops@%s" % _domain(notice.host)
        message = mail(notice, sender, self.section.to)
        if self.section.smtp_host:
            return self._by_smtp(message, sender, list(only))
        return self._by_sendmail(message, sender)

    def _by_sendmail(self, message: EmailMessage, sender: str) -> Answer:
        argv = (self.section.sendmail, "-i", "-f", sender, "--", *self.section.to)
        # A program of this host wants the line ends of this host.
        body = message.as_bytes(policy=message.policy.clone(linesep="\n", max_line_length=76))
        try:
            self.runner.run(Command(argv), stdin=body, timeout=self.caller.timeout)
        except PgopsError as error:
            raise DeliveryError(error.message) from error
        return Answer("taken by %s" % self.section.sendmail)

    def _by_smtp(self, message: EmailMessage, sender: str, to: list[str]) -> Answer:
        section = self.section
        password = self.secret("password")
        if section.user and section.security == "none" and section.smtp_host not in _HERE:
            raise DeliveryError("A password is not sent without TLS: set alerts.email.security.", again=False)
        server: Optional[smtplib.SMTP] = None
        try:
            server = self._connected()
            with contextlib.closing(server):
                if section.user:
                    server.login(section.user, password)
                refused = server.send_message(message, sender, to)
                _bye(server)
        except smtplib.SMTPServerDisconnected as error:
            if getattr(server, "handed", False):
                said = "%s got the whole message, and did not say whether it keeps it" % section.smtp_host
                raise DeliveryError(said, again=False, unsure=True) from error
            raise _told(error, to) from error
        except smtplib.SMTPException as error:
            raise _told(error, to) from error
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or error
            raise DeliveryError("TLS with %s failed: %s" % (section.smtp_host, why), again=False) from error
        except (OSError, ValueError) as error:
            # Its name, too, may be what is wrong.
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise DeliveryError("%s cannot be reached: %s" % (section.smtp_host, said), again=False) from error
        said = "taken by %s for %d" % (section.smtp_host, len(to) - len(refused))
        if refused:
            # Whoever took it would get it once more with each further try: it is for those alone that may take it later.
            left = "not for %d of %d: %s" % (len(refused), len(to), _refusals(refused))
            return Answer("%s, %s" % (said, left), refused=left, later=_later(refused, to), lost=_lost(refused, to))
        return Answer(said)

    def _connected(self) -> smtplib.SMTP:
        section = self.section
        port: int = section.smtp_port or _PORTS[section.security]
        timeout = self.caller.timeout
        if section.security == "tls":
            return _SecureSession(section.smtp_host, port, timeout=timeout, context=self.caller.context())
        server = _Session(section.smtp_host, port, timeout=timeout)
        if section.security == "starttls":
            try:
                server.starttls(context=self.caller.context())
            except BaseException:
                server.close()
                raise
        return server


class _Handing:
    """A session that knows whether it has begun to hand a message over."""

    handed = False

    def data(self, msg: Any) -> Any:
        self.handed = True
        return super().data(msg)  # type: ignore[misc]


class _Session(_Handing, smtplib.SMTP):
    pass


class _SecureSession(_Handing, smtplib.SMTP_SSL):
    pass


def _bye(server: smtplib.SMTP) -> None:
    """End the session; the message is taken, whatever comes of that."""
    with contextlib.suppress(OSError, smtplib.SMTPException):
        server.quit()


def mail(notice: Notice, sender: str, to: list[str]) -> EmailMessage:
    """Return the message. All mails of one incident are one thread."""
    message = EmailMessage(policy=SMTP)
    message["Subject"] = "[pgops] %s" % notice.subject
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Date"] = email.utils.format_datetime(datetime.now(timezone.utc))
    # The same with each try, so that who gets it twice sees it once.
    digest = hashlib.sha256(to_body(notice.as_data())).hexdigest()[:32]
    message["Message-ID"] = "<%s@%s>" % (digest, _domain(notice.host))
    thread = hashlib.sha256(notice.key.encode("utf-8")).hexdigest()[:32]
    message["References"] = "<%s@%s>" % (thread, _domain(notice.host))
    # No out-of-office answers, and no place in a mail loop.
    message["Auto-Submitted"] = "auto-generated"
    message["X-Pgops-Event"] = notice.event
    if notice.level == "critical" and not notice.ends:
        message["Importance"] = "high"
    message.set_content(notice.body() + "\n", cte="quoted-printable")
    return message


def _domain(host: str) -> str:
    known = "".join(c for c in host if c.isascii() and (c.isalnum() or c in "-.")).strip("-.")
    return known or "localhost"


def _told(error: smtplib.SMTPException, to: Sequence[str]) -> DeliveryError:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        # A server that breaks off (421) was not asked about all of them.
        later = [a for a in to if a not in error.recipients or error.recipients[a][0] < 500]
        return DeliveryError(
            "Not taken for %s." % _refusals(error.recipients),
            again=bool(later),
            each=True,
            later=later,
            lost=[a for a in to if a not in later],
        )
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        # By RFC 5321, what begins with 4 may work later. After the data it is the message that is refused.
        again = 400 <= error.smtp_code < 500
        alone = isinstance(error, smtplib.SMTPDataError) and not again
        return DeliveryError("It answered %d %s" % (error.smtp_code, said), again=again, alone=alone)
    return DeliveryError(str(error) or type(error).__name__, again=not isinstance(error, smtplib.SMTPNotSupportedError))


def _later(refused: Mapping[str, Any], to: Sequence[str]) -> tuple[str, ...]:
    """Return those of `to` that were refused for now (4xx), not those that were refused for good."""
    return tuple(address for address in to if address in refused and refused[address][0] < 500)


def _lost(refused: Mapping[str, Any], to: Sequence[str]) -> tuple[str, ...]:
    return tuple(address for address in to if address in refused and refused[address][0] >= 500)


def _refusals(refused: Any) -> str:
    parts = []
    for address, (code, said) in refused.items():
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        parts.append("%s (%d %s)" % (address, code, text))
    return ", ".join(parts)


__all__ = ("EmailChannel", "mail")
