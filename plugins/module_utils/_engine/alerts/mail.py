# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""E-mail, by SMTP or by the local sendmail."""

from __future__ import annotations

import email.utils
import hashlib
import smtplib
import ssl
from datetime import datetime, timezone
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

from ..core.errors import PgopsError
from ..core.notices import Notice
from ..system.runner import Command
from .channels import Channel
from .http import Answer, DeliveryError

_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_HERE = ("localhost", "127.0.0.1", "::1")


class EmailChannel(Channel):
    """One message to all addresses; it is accepted when the server took it for one of them, and says who is left out."""

    name = "email"
    bundles = True

    def send(self, notice: Notice) -> Answer:
        """Send the mail. Raise DeliveryError if it is accepted for nobody."""
        sender = self.section.sender or "pgops@%s" % _domain(notice.host)
        message = mail(notice, sender, self.section.to)
        if self.section.smtp_host:
            return self._by_smtp(message, sender)
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

    def _by_smtp(self, message: EmailMessage, sender: str) -> Answer:
        section = self.section
        password = self.secret("password")
        if section.user and section.security == "none" and section.smtp_host not in _HERE:
            raise DeliveryError("A password is not sent without TLS: set alerts.email.security.", again=False)
        try:
            with self._connected() as server:
                if section.user:
                    server.login(section.user, password)
                refused = server.send_message(message, sender, section.to)
        except smtplib.SMTPException as error:
            raise _told(error) from error
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or error
            raise DeliveryError("TLS with %s failed: %s" % (section.smtp_host, why), again=False) from error
        except (OSError, ValueError) as error:
            # Its name, too, may be what is wrong.
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise DeliveryError("%s cannot be reached: %s" % (section.smtp_host, said), again=False) from error
        said = "taken by %s for %d" % (section.smtp_host, len(section.to) - len(refused))
        if refused:
            # Whoever took it would get it once more with each further try.
            left = "not for %d of %d: %s" % (len(refused), len(section.to), _refusals(refused))
            return Answer("%s, %s" % (said, left), refused=left)
        return Answer(said)

    def _connected(self) -> smtplib.SMTP:
        section = self.section
        port: int = section.smtp_port or _PORTS[section.security]
        timeout = self.caller.timeout
        if section.security == "tls":
            return smtplib.SMTP_SSL(section.smtp_host, port, timeout=timeout, context=self.caller.context())
        server = smtplib.SMTP(section.smtp_host, port, timeout=timeout)
        if section.security == "starttls":
            try:
                server.starttls(context=self.caller.context())
            except BaseException:
                server.close()
                raise
        return server


def mail(notice: Notice, sender: str, to: list[str]) -> EmailMessage:
    """Return the message. All mails of one incident are one thread."""
    message = EmailMessage(policy=SMTP)
    message["Subject"] = "[pgops] %s" % notice.subject
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Date"] = email.utils.format_datetime(datetime.now(timezone.utc))
    message["Message-ID"] = email.utils.make_msgid(domain=_domain(notice.host))
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


def _told(error: smtplib.SMTPException) -> DeliveryError:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return DeliveryError("Not taken for %s." % _refusals(error.recipients), again=False)
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        # By RFC 5321, what begins with 4 may work later. After the data it is the message that is refused.
        again = 400 <= error.smtp_code < 500
        alone = isinstance(error, smtplib.SMTPDataError) and not again
        return DeliveryError("It answered %d %s" % (error.smtp_code, said), again=again, alone=alone)
    return DeliveryError(str(error) or type(error).__name__, again=not isinstance(error, smtplib.SMTPNotSupportedError))


def _refusals(refused: Any) -> str:
    parts = []
    for address, (code, said) in refused.items():
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        parts.append("%s (%d %s)" % (address, code, text))
    return ", ".join(parts)


__all__ = ("EmailChannel", "mail")
