/** What the notification says, in the languages of those who read it. `{}` stands for how long ago that was. */

const NAMES = ["title", "rollback", "note", "time", "refresh", "later", "close"];

const TEXTS = `
en|New version available!|Earlier version restored|Still rolling out|Deployed {}|Refresh|Later|Close
de|Neue Version verfügbar!|Frühere Version wiederhergestellt|Wird noch veröffentlicht|Veröffentlicht {}|Aktualisieren|Später|Schließen
nl|Nieuwe versie beschikbaar!|Eerdere versie hersteld|Wordt nog uitgebracht|Uitgebracht {}|Vernieuwen|Later|Sluiten
fr|Nouvelle version disponible !|Version précédente restaurée|Publication encore en cours|Publiée {}|Actualiser|Plus tard|Fermer
es|¡Nueva versión disponible!|Versión anterior restaurada|Aún se está publicando|Publicada {}|Actualizar|Más tarde|Cerrar
pt|Nova versão disponível!|Versão anterior restaurada|Publicação ainda em curso|Publicada {}|Atualizar|Mais tarde|Fechar
it|Nuova versione disponibile!|Versione precedente ripristinata|Pubblicazione ancora in corso|Pubblicata {}|Aggiorna|Più tardi|Chiudi
pl|Dostępna nowa wersja!|Przywrócono starszą wersję|Publikacja wciąż trwa|Opublikowano {}|Odśwież|Później|Zamknij
tr|Yeni sürüm mevcut!|Önceki sürüme dönüldü|Hâlâ yayınlanıyor|{} yayınlandı|Yenile|Daha sonra|Kapat
ru|Доступна новая версия!|Восстановлена прежняя версия|Ещё публикуется|Опубликовано {}|Обновить|Позже|Закрыть
uk|Доступна нова версія!|Відновлено попередню версію|Ще публікується|Опубліковано {}|Оновити|Пізніше|Закрити
ja|新しいバージョンがあります|以前のバージョンに復元|まだ公開作業中です|{}に公開|更新|後で|閉じる
zh|有新版本可用|已恢复旧版本|仍在发布中|{}发布|刷新|稍后|关闭
ko|새 버전이 있습니다|이전 버전으로 복원됨|아직 배포 중|{} 배포됨|새로고침|나중에|닫기
ar|يتوفر إصدار جديد!|تمت استعادة إصدار سابق|لا يزال قيد النشر|نُشر {}|تحديث|لاحقًا|إغلاق
hi|नया संस्करण उपलब्ध है!|पिछला संस्करण बहाल हुआ|अभी जारी हो रहा है|{} जारी हुआ|रीफ़्रेश करें|बाद में|बंद करें
`;

const UNITS = { day: 864e5, hour: 36e5, minute: 6e4, second: 1e3 };

/**
 * Give the first of these languages that there are texts in, English after all, and the texts.
 * @param {Iterable<string>} languages tags as `lang` has them, the best first; regions don't count
 * @returns {[lang: string, texts: import("./element.js").Texts]}
 */
export function speak(languages) {
    const lang = [...languages, "en"]
        .map((tag) => tag.split(/[-_]/)[0].toLowerCase())
        .find((language) => TEXTS.includes(`\n${language}|`));
    const words = TEXTS.split(`\n${lang}|`)[1].split("\n")[0].split("|");
    return [lang, Object.fromEntries(NAMES.map((name, i) => [name, words[i]]))];
}

/** Say how long ago that was, or nothing where the browser doesn't know the language. */
export function ago(milliseconds, lang) {
    const { RelativeTimeFormat } = Intl;
    const age = Math.max(milliseconds, UNITS.second);
    const unit = Object.keys(UNITS).find((name) => age >= UNITS[name]);
    return RelativeTimeFormat.supportedLocalesOf(lang).length
        ? new RelativeTimeFormat(lang).format(-Math.floor(age / UNITS[unit]), unit)
        : "";
}
